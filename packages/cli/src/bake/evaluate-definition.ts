/**
 * Typed definitions: `kiln.bake.ts` and whatever `-f` names with such an ending. They are programs, so each is
 * evaluated in a process that may do next to nothing: Node's permission model without files, network (Node 25 and
 * newer), children, threads and addons, no environment, no modules but `@kiln/bake`, and bounds on time, memory and
 * output. `--allow definition.read=PATH` and `--allow definition.network` open what they say.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import {
  type BakeFile,
  type BakeHost,
  checkConfig,
  definitionFile,
  lineOfPath,
  readDefinition,
} from "@kiln/bake";
import { BuildError } from "@kiln/base";
import { entryPath } from "@kiln/sys";
import type { DefinitionAnswer, DefinitionJob } from "./definition-worker.ts";

/** Read when there is nothing else: Buildx's own names come first. */
export const TYPED_DEFINITION = "kiln.bake.ts";

const MAX_EVALUATION_MS = 10_000;
const MAX_ANSWER_BYTES = 16 << 20;
const MAX_MESSAGE_BYTES = 1 << 20;
/** Of what a definition printed that was stopped. */
const MAX_SHOWN_LETTERS = 2000;
const MAX_HEAP_MIB = 256;
/** Buffers aren't part of the heap; checked while it runs, where the system tells. */
const MAX_MEMORY_BYTES = 1 << 30;
const MEMORY_CHECK_MS = 50;

/** What definitions may do. */
export interface DefinitionPermissions {
  /** Files and directories that they may read and import from. */
  readonly read: readonly string[];
  readonly network: boolean;
}

/** Takes the permissions of definitions out of the values of `--allow`; the others are the build's. */
export function definitionPermissions(allow: readonly string[]): {
  readonly permissions: DefinitionPermissions;
  readonly others: readonly string[];
} {
  const read: string[] = [];
  let network = false;
  const others: string[] = [];
  for (const text of allow) {
    if (text === "definition.network") network = true;
    else if (text.startsWith("definition.read=")) read.push(text.slice("definition.read=".length));
    else if (text === "definition.read")
      throw new BuildError("invalid_argument", "definition.read needs a path: --allow definition.read=PATH");
    else others.push(text);
  }
  return { permissions: { read, network }, others };
}

/** True for the name of a definition that is a program. */
export function isTypedDefinition(name: string): boolean {
  return /\.(?:[cm]?ts|m?js)$/.test(name);
}

/** What evaluation needs to know. */
export interface EvaluateOptions {
  readonly permissions: DefinitionPermissions;
  /** `--var` texts. */
  readonly vars: readonly string[];
  /** Gets what the definition printed. */
  readonly onOutput: (text: string) => void;
  readonly signal: AbortSignal;
  /** {@link MAX_EVALUATION_MS} by default. */
  readonly timeoutMs?: number;
}

/** Evaluates those of the files that are programs; the others stay. */
export async function evaluateDefinitions(
  files: readonly BakeFile[],
  host: BakeHost,
  options: EvaluateOptions,
): Promise<BakeFile[]> {
  const out: BakeFile[] = [];
  for (const file of files) {
    out.push(isTypedDefinition(file.name) ? await evaluateDefinition(file, host, options) : file);
  }
  return out;
}

async function evaluateDefinition(
  file: BakeFile,
  host: BakeHost,
  options: EvaluateOptions,
): Promise<BakeFile> {
  const url = /^[a-z][a-z0-9+.-]+:\/\//i.test(file.name)
    ? `file:///${encodeURIComponent(file.name)}`
    : pathToFileURL(resolve(host.cwd, file.name)).href;
  const source = decode(file);
  const { permissions } = options;
  const answer = await runWorker(
    {
      url,
      source,
      typescript: !/\.m?js$/.test(file.name),
      mayRead: permissions.read.length > 0,
      mayConnect: permissions.network,
      localPlatform: host.localPlatform,
      variables: variablesOf(host, options.vars),
    },
    host,
    options,
  );
  if (typeof answer === "string") throw definitionError(file.name, answer);
  if ("error" in answer) throw definitionError(placeOf(file.name, url, source, answer), answer.error);
  const checked = checkConfig(answer.config);
  if (!("config" in checked)) {
    const texts = checked.map(({ message, path }) => {
      const line = lineOfPath(source, path);
      return `${file.name}${line === undefined ? "" : `:${line}`}: ${message}`;
    });
    throw new BuildError("invalid_argument", texts.join("\n"));
  }
  const made = definitionFile(checked.config, `${file.name}.json`, answer.variables);
  checkValues(made, host, { name: file.name, source });
  return made;
}

/** Mistakes in values that only reading them shows, such as a cache without a type, with their place in the source. */
function checkValues(
  made: BakeFile,
  host: BakeHost,
  { name, source }: { readonly name: string; readonly source: string },
): void {
  const outcome = readDefinition([made], host);
  if (outcome.ok) return;
  const problem = outcome.diagnostics.find(({ subject }) => subject?.filename === made.name);
  // Other failures aren't this file's alone; they come up again with all files.
  if (problem?.subject === undefined) return;
  const [kind = "", block = "", key = ""] = pathOfLine(
    new TextDecoder().decode(made.data),
    problem.subject.start.line,
  );
  const plural = `${kind}s`;
  const camel = key.replace(/-([a-z])/g, (_whole, letter: string) => letter.toUpperCase());
  const line =
    lineOfPath(source, [plural, block, camel]) ??
    lineOfPath(source, [plural, block, key]) ??
    lineOfPath(source, [block, camel]);
  const place = line === undefined ? name : `${name}:${line}`;
  throw definitionError(
    place,
    `${kind} ${JSON.stringify(block)}: ${JSON.stringify(camel)}: ${problem.detail}`,
  );
}

/** The keys around a line (from 1) of JSON that was written with an indentation of two. */
function pathOfLine(json: string, line: number): string[] {
  const path: string[] = [];
  let depth = Number.POSITIVE_INFINITY;
  for (const text of json.split("\n").slice(0, line).reverse()) {
    const [, indent = "", key] = /^( *)("(?:[^"\\]|\\.)*"): /.exec(text) ?? [];
    if (key === undefined || indent.length >= depth) continue;
    depth = indent.length;
    path.unshift(JSON.parse(key) as string);
  }
  return path;
}

function definitionError(place: string, message: string): BuildError {
  return new BuildError("invalid_argument", `${place}: ${message}`);
}

function decode({ name, data }: BakeFile): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch (error) {
    throw new BuildError("invalid_argument", `${name}: the file isn't UTF-8`, { cause: error });
  }
}

/** As for HCL: `--var`, else the environment unless that is switched off. */
function variablesOf(host: BakeHost, vars: readonly string[]): Record<string, string> {
  const off = /^(?:1|t|true)$/i.test(host.env("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP") ?? "");
  const out = Object.create(null) as Record<string, string>;
  for (const [name, value] of off ? [] : host.environ()) out[name] = value;
  for (const text of vars) {
    const at = text.indexOf("=");
    if (at > 0) out[text.slice(0, at)] = text.slice(at + 1);
  }
  return out;
}

/** `kiln.bake.ts:3:5` when the stack or the text tells where. */
function placeOf(
  name: string,
  url: string,
  source: string,
  answer: { readonly error: string; readonly stack: string },
): string {
  const at = answer.stack.indexOf(`${url}:`);
  if (at >= 0) {
    const [, line = "", column] = /^:(\d+)(?::(\d+))?/.exec(answer.stack.slice(at + url.length)) ?? [];
    if (line !== "") return column === undefined ? `${name}:${line}` : `${name}:${line}:${column}`;
  }
  const imported = /^import of ("(?:[^"\\]|\\.)*") /.exec(answer.error)?.[1];
  if (imported !== undefined) {
    const specifier = JSON.parse(imported) as string;
    const index = source
      .split("\n")
      .findIndex((line) => line.includes(specifier) && /\bimport\b|\bfrom\b/.test(line));
    if (index >= 0) return `${name}:${index + 1}`;
  }
  return name;
}

function nodeArguments(worker: string, permissions: DefinitionPermissions, cwd: string): string[] {
  const known = process.allowedNodeEnvironmentFlags;
  const canLimitNetwork = known.has("--allow-net");
  const readable = [
    worker,
    join(worker, "..", "package.json"),
    ...permissions.read.flatMap((path) => readablePaths(path, cwd)),
  ];
  return [
    "--permission",
    ...readable.map((path) => `--allow-fs-read=${path}`),
    ...(permissions.network && canLimitNetwork ? ["--allow-net"] : []),
    "--disallow-code-generation-from-strings",
    "--no-warnings",
    "--no-addons",
    `--max-old-space-size=${MAX_HEAP_MIB}`,
    worker,
  ];
}

/** A path as it was given and as it is without links; all below a directory. */
function readablePaths(path: string, cwd: string): string[] {
  const full = resolve(cwd, path);
  if (!existsSync(full))
    throw new BuildError("not_found", `definition.read: ${path}: no such file or directory`);
  const real = realpathSync(full);
  const isDirectory = statSync(real).isDirectory();
  return [...new Set([full, real])].flatMap((one) => (isDirectory ? [one, join(one, "*")] : [one]));
}

/** The answer, or why there is none. */
async function runWorker(
  job: DefinitionJob,
  host: BakeHost,
  options: EvaluateOptions,
): Promise<DefinitionAnswer | string> {
  const worker = entryPath(import.meta.url, "definition-worker");
  const child = spawn(process.execPath, nodeArguments(worker, options.permissions, host.cwd), {
    cwd: "/",
    env: {},
    stdio: ["pipe", "pipe", "pipe", "pipe"],
    signal: options.signal,
    killSignal: "SIGKILL",
  });
  const bounds = new Bounds(child, options.timeoutMs ?? MAX_EVALUATION_MS);
  const ended = new Promise<number | null>((done, failed) => {
    child.on("error", failed);
    child.on("close", done);
  });
  const answer = bounds.collect(3, MAX_ANSWER_BYTES, "its result is too large");
  const output = [1, 2].map((fd) => bounds.collect(fd, MAX_MESSAGE_BYTES, "it prints too much"));
  const { stdin } = child;
  // A worker that ends early closes its input.
  stdin.on("error", () => undefined);
  stdin.end(JSON.stringify(job));
  let code: number | null;
  try {
    code = await ended;
  } catch (error) {
    options.signal.throwIfAborted();
    throw error;
  } finally {
    bounds.end();
  }
  options.signal.throwIfAborted();
  const printed = output.map((read) => read()).join("");
  if (bounds.exceeded !== undefined) {
    options.onOutput(printed.slice(0, MAX_SHOWN_LETTERS));
    return bounds.exceeded;
  }
  const text = answer();
  if (text === "" && code === 0)
    return "evaluation ended without a result: the definition waits for something that never comes";
  if (text === "") return `evaluation failed (exit code ${code}): ${reasonOf(printed)}`;
  options.onOutput(printed);
  return JSON.parse(text) as DefinitionAnswer;
}

function reasonOf(text: string): string {
  if (/heap out of memory/.test(text)) return `it needs more than ${MAX_HEAP_MIB} MiB of memory`;
  const lines = text.trim().split("\n");
  return lines.findLast((line) => /^\S*(?:Error|ERR_)/.test(line)) ?? lines.at(-1) ?? "";
}

/** Ends a worker that takes too long, too much memory, or says too much. */
class Bounds {
  exceeded: string | undefined;
  readonly #child: ChildProcess;
  readonly #timers: readonly NodeJS.Timeout[];

  constructor(child: ChildProcess, timeoutMs: number) {
    this.#child = child;
    this.#timers = [
      setTimeout(() => this.#exceed(`it takes longer than ${timeoutMs / 1000} seconds`), timeoutMs),
      setInterval(() => this.#checkMemory(), MEMORY_CHECK_MS),
    ];
  }

  end(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** Collects what the worker writes to a descriptor. */
  collect(fd: number, maxBytes: number, complaint: string): () => string {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const stream = this.#child.stdio[fd] as NodeJS.ReadableStream;
    stream.on("data", (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) this.#exceed(complaint);
      else chunks.push(chunk);
    });
    return () => Buffer.concat(chunks).toString();
  }

  #exceed(why: string): void {
    this.exceeded ??= `evaluation was stopped: ${why}`;
    this.#child.kill("SIGKILL");
  }

  #checkMemory(): void {
    if (residentBytes(this.#child.pid) > MAX_MEMORY_BYTES)
      this.#exceed(`it needs more than ${MAX_MEMORY_BYTES / (1 << 20)} MiB of memory`);
  }
}

/** What a process occupies, where `/proc` tells; else 0. */
function residentBytes(pid: number | undefined): number {
  if (pid === undefined || process.platform !== "linux") return 0;
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/^VmRSS:\s*(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    // It has just ended.
    return 0;
  }
}
