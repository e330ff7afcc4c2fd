import type { FlagSpec, FlagValues } from "./flags.ts";

/** A stream that a command writes its results or messages to. */
export interface TextSink {
  write(chunk: string | Uint8Array): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

/** What a program gets from the machine it runs on. Tests pass their own. */
export interface Terminal {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: TextSink & NodeJS.WritableStream;
  readonly stderr: TextSink;
  readonly env: NodeJS.ProcessEnv;
  cwd(): string;
}

/** Everything that one run of a command knows. */
export interface CommandContext {
  readonly terminal: Terminal;
  readonly args: readonly string[];
  readonly flags: FlagValues;
  /** Aborts on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** The name that the program was called by. */
  readonly program: string;
  readonly debug: boolean;
}

/** The parts of a command that only its own run and help need. */
export interface CommandBody {
  /** What follows the command's name: `[OPTIONS] PATH | URL | -`. */
  readonly usage: string;
  readonly flags: readonly FlagSpec[];
  /** Numbers of arguments that are accepted. */
  readonly minArgs: number;
  readonly maxArgs: number;
  /** True when `--builder` means nothing to the command. */
  readonly hidesBuilder?: boolean;
  /** Arguments and flags are taken as they are; none is read. */
  readonly takesAnything?: boolean;
  /** Resolves to the exit code, 0 if undefined. */
  run(ctx: CommandContext): Promise<number | undefined>;
}

/** A command or a group of commands. Bodies load on use, so that a program starts fast. */
export interface Command {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly short: string;
  readonly hidden?: boolean;
  readonly body?: () => Promise<CommandBody>;
  readonly subcommands?: readonly Command[];
}

/** Ends the program with a code and no further message. */
export class ExitCode extends Error {
  override readonly name = "ExitCode";
  readonly code: number;

  constructor(code: number) {
    super(`exit code ${code}`);
    this.code = code;
  }
}
