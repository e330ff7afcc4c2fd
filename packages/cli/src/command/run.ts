import type { Command, CommandBody, Terminal } from "./command.ts";
import { type FlagSpec, nearestHint, parseFlags, usageError } from "./flags.ts";
import { type HelpSubject, helpText } from "./help.ts";

/** A program: its commands, and the flags that all of them take. */
export interface Program {
  readonly name: string;
  readonly root: Command;
  readonly globals: readonly FlagSpec[];
  /** Called before a command runs, with the flags that warn. */
  readonly warn: (message: string) => void;
  /** How flags are written, pflag's way by default. */
  readonly style?: "pflag" | "go";
  /** Lays out help texts, as cobra does by default. */
  readonly help?: (subject: HelpSubject, env: NodeJS.ProcessEnv) => string;
}

const HELP: FlagSpec = { name: "help", short: "h", kind: "bool", usage: "help" };

/** Finds the command that `argv` names and runs it. Resolves to the exit code; errors are thrown. */
export async function runProgram(
  program: Program,
  argv: readonly string[],
  machine: { terminal: Terminal; signal: AbortSignal },
): Promise<number> {
  const words = argv[0] === "help" ? [...argv.slice(1), "--help"] : argv;
  const found = findCommand(program, words);
  const body = await found.command.body?.();
  const help = (): string =>
    (program.help ?? helpText)(
      {
        path: [program.name, ...found.path],
        command: found.command,
        globals: program.globals,
        ...(body ? { body } : {}),
      },
      machine.terminal.env,
    );
  const specs = [...(body?.flags ?? []), ...program.globals, HELP];
  const style = program.style ?? "pflag";
  const { args, flags } = parseFlags(body?.takesAnything ? [] : found.rest, specs, { style });
  if (flags.bool("help")) {
    machine.terminal.stdout.write(help());
    return 0;
  }
  if (body === undefined) {
    machine.terminal.stdout.write(help());
    const [unknown] = args;
    if (unknown === undefined) return 0;
    const names = (found.command.subcommands ?? []).filter((sub) => !sub.hidden).map((sub) => sub.name);
    throw usageError(`unknown command: ${JSON.stringify(unknown)}`, nearestHint(unknown, names));
  }
  checkArgs(body, args, [program.name, ...found.path].join(" "));
  for (const { name, warning, deprecated } of flags.given()) {
    if (warning) program.warn(warning);
    if (deprecated) machine.terminal.stderr.write(`Flag --${name} has been deprecated, ${deprecated}\n`);
  }
  const code = await body.run({
    terminal: machine.terminal,
    args,
    flags,
    signal: machine.signal,
    program: program.name,
    debug: flags.bool("debug"),
  });
  return code ?? 0;
}

interface Found {
  readonly command: Command;
  readonly path: readonly string[];
  readonly rest: readonly string[];
}

/** Takes the words that name commands out of `argv`; global flags may stand before and between them. */
function findCommand(program: Program, argv: readonly string[]): Found {
  let command = program.root;
  const path: string[] = [];
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--") {
      rest.push(...argv.slice(i));
      break;
    }
    if (word.startsWith("-") && word !== "-") {
      rest.push(word);
      if (takesNext(program, word) && i + 1 < argv.length) rest.push(argv[++i] as string);
      continue;
    }
    const next = command.subcommands?.find((sub) => sub.name === word || sub.aliases?.includes(word));
    if (next === undefined) {
      rest.push(...argv.slice(i));
      break;
    }
    command = next;
    path.push(next.name);
    if (!next.subcommands) {
      rest.push(...argv.slice(i + 1));
      break;
    }
  }
  return { command, path, rest };
}

function takesNext(program: Program, word: string): boolean {
  if (word.includes("=")) return false;
  const spec = program.globals.find((flag) => word === `--${flag.name}` || word === `-${flag.short}`);
  return spec !== undefined && spec.kind !== "bool";
}

function checkArgs(body: CommandBody, args: readonly string[], name: string): void {
  const { minArgs: min, maxArgs: max } = body;
  if (args.length >= min && args.length <= max) return;
  const program = name.split(" ")[0];
  const count = (n: number): string => `${n} ${n === 1 ? "argument" : "arguments"}`;
  const usage = `\n\nUsage:  ${name}${body.usage === "" ? "" : ` ${body.usage}`}\n\nRun '${name} --help' for more information`;
  if (max === 0) throw usageError(`${program}: '${name}' accepts no arguments${usage}`);
  const wanted =
    min === max
      ? `requires ${count(min)}`
      : args.length < min
        ? `requires at least ${count(min)}`
        : `requires at most ${count(max)}`;
  throw usageError(`${program}: '${name}' ${wanted}${usage}`);
}
