import { statSync } from "node:fs";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { checkDockerfile, type Diagnostic, type Fix, fixDockerfile } from "@kiln/dockerfile";
import { readIgnoreFile } from "@kiln/patterns";
import { sanitizeText } from "@kiln/progress";
import { isRemoteUrl } from "../build/remote-url.ts";
import type { CommandBody, CommandContext, TextSink } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { lineDiff } from "./line-diff.ts";
import { type OpenedFile, openToReplace, readRegularFile, replaceFile } from "./replace-file.ts";

const MAX_STDIN_BYTES = 16 << 20;

/** `kiln check`. */
export const checkCommand: CommandBody = {
  usage: "[OPTIONS] [PATH | FILE | -]...",
  flags: [
    {
      name: "file",
      short: "f",
      kind: "string",
      usage: 'Name of the Dockerfile (default: "PATH/Dockerfile")',
    },
    { name: "fix", kind: "bool", usage: "Rewrite what has one safe correction" },
    { name: "diff", kind: "bool", usage: 'Show what "--fix" would change, and change nothing' },
    { name: "build-arg", kind: "list", usage: "Set build-time variables" },
    {
      name: "rules",
      kind: "string",
      usage: 'Rules to check ("skip=a,b;error=true;experimental=all"), instead of "# check=" in the file',
    },
    {
      name: "format",
      kind: "string",
      usage: 'Format of the findings ("text", "json")',
      defaultValue: "text",
    },
  ],
  minArgs: 0,
  maxArgs: Number.POSITIVE_INFINITY,
  hidesBuilder: true,
  run: runCheck,
};

/** A Dockerfile to check. */
interface Target {
  /** As the user named it; `-` for the standard input. */
  readonly name: string;
  readonly path: string | undefined;
  /** Where its ignore files are looked for. */
  readonly folder: string | undefined;
}

/** A checked Dockerfile. */
interface Checked {
  readonly target: Target;
  readonly data: Uint8Array;
  readonly fixes: readonly Fix[];
  readonly diagnostics: readonly Diagnostic[];
  /** What `--diff` shows, with the files' own bytes. */
  readonly diff: Buffer;
}

const EMPTY = Buffer.alloc(0);

async function runCheck(ctx: CommandContext): Promise<number> {
  const { flags, args } = ctx;
  const format = flags.string("format");
  if (format !== "text" && format !== "json") throw usageError(`unknown format ${JSON.stringify(format)}`);
  if (flags.bool("fix") && flags.bool("diff")) throw usageError("--fix and --diff can't be used together");
  if (flags.changed("file") && args.length > 1) throw usageError("--file needs a single PATH");
  const targets = (args.length === 0 ? ["."] : args).map((argument) => findTarget(ctx, argument));
  const results: Checked[] = [];
  for (const target of targets) results.push(await checkTarget(ctx, target));
  const fixesStdin = flags.bool("fix") && targets.some(({ path }) => path === undefined);
  report(ctx, results, { format, sink: fixesStdin ? ctx.terminal.stderr : ctx.terminal.stdout });
  const isClean = results.every(({ diagnostics, diff }) => diagnostics.length === 0 && diff.length === 0);
  return isClean ? 0 : 1;
}

function findTarget(ctx: CommandContext, argument: string): Target {
  if (argument === "") throw usageError("PATH can't be empty");
  if (argument === "-") return { name: "-", path: undefined, folder: undefined };
  if (isRemoteUrl(argument)) {
    throw new BuildError("unimplemented", `kiln check reads files of this machine, not ${argument}`, {
      hint: "kiln build --check takes URLs",
    });
  }
  const at = (path: string): string => (path.startsWith("/") ? path : join(ctx.terminal.cwd(), path));
  const file = ctx.flags.string("file");
  const isFolder = statSync(at(argument), { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (file !== "") return { name: file, path: at(file), folder: isFolder ? at(argument) : undefined };
  if (!isFolder) return { name: argument, path: at(argument), folder: undefined };
  const name = join(argument, "Dockerfile");
  return { name, path: at(name), folder: at(argument) };
}

async function checkTarget(ctx: CommandContext, target: Target): Promise<Checked> {
  const { flags } = ctx;
  const fixes = flags.bool("fix");
  let opened: OpenedFile | undefined;
  let data: Uint8Array;
  if (target.path === undefined) data = await readStdin(ctx);
  else if (fixes) {
    opened = openToReplace(target.path);
    data = opened.data;
  } else data = readRegularFile(target.path);
  const fixed = fixes || flags.bool("diff") ? fixDockerfile(data) : undefined;
  if (fixes && fixed !== undefined) {
    if (opened === undefined) ctx.terminal.stdout.write(fixed.bytes);
    else if (fixed.fixes.length > 0) replaceFile(opened, fixed.bytes);
  }
  const diff = flags.bool("diff") && fixed !== undefined ? diffOf(target.name, data, fixed.bytes) : EMPTY;
  const now = fixes && fixed !== undefined ? fixed.bytes : data;
  const diagnostics = await checkDockerfile(now, {
    filename: target.path === undefined ? "stdin" : target.name,
    ignore: ignorePatterns(target),
    buildArgs: buildArguments(ctx),
    ...(flags.changed("rules") ? { check: flags.string("rules") } : {}),
  });
  return { target, data: now, fixes: fixes ? (fixed?.fixes ?? []) : [], diagnostics, diff };
}

/** Compares bytes: line ends, a BOM and what isn't UTF-8 are shown as they are. */
function diffOf(name: string, before: Uint8Array, after: Uint8Array): Buffer {
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
  return Buffer.from(lineDiff(text(Buffer.from(name)), text(before), text(after)), "latin1");
}

async function readStdin(ctx: CommandContext): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of ctx.terminal.stdin) {
    const bytes = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk;
    size += bytes.length;
    if (size > MAX_STDIN_BYTES) {
      throw new BuildError("resource_exhausted", `the input is larger than ${MAX_STDIN_BYTES} bytes`);
    }
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}

/** `<Dockerfile>.dockerignore` beside the file, else the `.dockerignore` of the context. */
function ignorePatterns({ path, folder }: Target): readonly string[] {
  const files = [
    ...(path === undefined ? [] : [`${path}.dockerignore`]),
    ...(folder === undefined ? [] : [join(folder, ".dockerignore")]),
  ];
  const found = files.find((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
  return found === undefined ? [] : readIgnoreFile(new TextDecoder().decode(readRegularFile(found)));
}

function buildArguments({ flags, terminal }: CommandContext): Record<string, string> {
  const entries = flags.list("build-arg").flatMap((text) => {
    const at = text.indexOf("=");
    if (at >= 0) return [[text.slice(0, at), text.slice(at + 1)] as const];
    const value = terminal.env[text];
    return value === undefined ? [] : [[text, value] as const];
  });
  return Object.fromEntries(entries);
}

function report(
  ctx: CommandContext,
  results: readonly Checked[],
  how: { readonly format: string; readonly sink: TextSink },
): void {
  if (ctx.flags.bool("diff") && how.format === "text") {
    // A diff that isn't read by a person goes to patch: with every byte.
    for (const { diff } of results) how.sink.write(how.sink.isTTY ? sanitizeText(diff.toString()) : diff);
    return;
  }
  if (how.format === "json") {
    how.sink.write(`${JSON.stringify(results.map(resultJson), null, 2)}\n`);
    return;
  }
  how.sink.write(sanitizeText(results.map((result) => resultText(result, results.length > 1)).join("\n")));
}

function resultText({ target, fixes, diagnostics }: Checked, several: boolean): string {
  let out = several ? `${target.name}\n` : "";
  for (const { line, rule, before, after } of fixes) {
    out += `${target.name}:${line}: ${rule}: ${before} → ${after}\n`;
  }
  const errors = diagnostics.filter(({ severity }) => severity === "error");
  const warnings = diagnostics.filter(({ severity }) => severity === "warning");
  out += `Check complete, ${countText(errors.length, warnings.length)}\n`;
  for (const { rule, message, excerpt } of warnings) {
    out += `\nWARNING: ${rule?.name}${rule?.url ? ` - ${rule.url}` : ""}\n${message}\n${excerpt}`;
  }
  for (const { message, excerpt } of errors) out += `\nERROR: ${message}\n${excerpt}`;
  return out;
}

function countText(errors: number, warnings: number): string {
  const of = (count: number, what: string): string[] =>
    count === 0 ? [] : [`${count} ${what}${count === 1 ? "" : "s"}`];
  const parts = [...of(errors, "error"), ...of(warnings, "warning")];
  if (parts.length === 0) return "no warnings found.";
  return `${parts.join(" and ")} ${errors + warnings === 1 ? "has" : "have"} been found!`;
}

/** Findings with the names that `--call=check,format=json` has. */
function resultJson({ target, data, fixes, diagnostics, diff }: Checked): object {
  const of = (wanted: Diagnostic["severity"]): Diagnostic[] =>
    diagnostics.filter(({ severity }) => severity === wanted);
  return {
    file: target.name,
    warnings: of("warning").map(({ rule, message, ranges }) => ({
      ruleName: rule?.name,
      description: rule?.description,
      url: rule?.url || undefined,
      detail: message,
      location: { ranges },
    })),
    errors: of("error").map(({ message, ranges }) => ({ message, location: { ranges } })),
    fixes: fixes.map(({ rule, line, before, after }) => ({ ruleName: rule, line, before, after })),
    ...(diff.length === 0 ? {} : { diff: diff.toString() }),
    sources: [{ filename: target.name, data: Buffer.from(data).toString("base64") }],
  };
}
