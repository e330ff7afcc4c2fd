import { spawn } from "node:child_process";
import { BuildError } from "@kiln/base";

/** What a program left behind. */
export interface ProgramResult {
  readonly code: number | null;
  readonly killedBy: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** How to run a program. */
export interface ProgramOptions {
  readonly signal: AbortSignal;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdin?: Uint8Array;
  /** Sees the output as it comes; what it returns is kept. */
  readonly onOutput?: (stream: 1 | 2, data: Buffer) => void;
}

const MAX_STDOUT_BYTES = 64 * 1024 * 1024;
const MAX_STDERR_CHARS = 64 * 1024;
const KILL_DELAY_MS = 10_000;

/**
 * Runs a program of the machine with umask 022 in a process group of its own, which goes when `signal`
 * aborts: first asked to (SIGTERM), ten seconds later forced to.
 *
 * @throws BuildError `unimplemented` when there is no such program.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  opts: ProgramOptions,
): Promise<ProgramResult> {
  opts.signal.throwIfAborted();
  const child = spawn("/bin/sh", ["-c", 'umask 022; exec "$0" "$@"', program, ...args], {
    detached: true,
    env: opts.env,
    stdio: [opts.stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(opts.cwd === undefined ? {} : { cwd: opts.cwd }),
  });
  const stdout: Buffer[] = [];
  let stdoutBytes = 0;
  let stderr = "";
  const { promise, resolve, reject } = Promise.withResolvers<ProgramResult>();
  const kill = (signal: NodeJS.Signals): void => killGroup(child.pid, signal);
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    kill("SIGTERM");
    timer = setTimeout(() => kill("SIGKILL"), KILL_DELAY_MS);
  };
  opts.signal.addEventListener("abort", onAbort, { once: true });
  child.stdout?.on("data", (data: Buffer) => {
    stdoutBytes += data.length;
    if (stdoutBytes > MAX_STDOUT_BYTES) {
      kill("SIGKILL");
      reject(new BuildError("resource_exhausted", `${program} wrote more than ${MAX_STDOUT_BYTES} bytes`));
      return;
    }
    stdout.push(data);
    opts.onOutput?.(1, data);
  });
  child.stderr?.on("data", (data: Buffer) => {
    stderr = (stderr + data.toString()).slice(-MAX_STDERR_CHARS);
    opts.onOutput?.(2, data);
  });
  child.on("error", reject);
  child.on("close", (code, killedBy) => resolve({ code, killedBy, stdout: Buffer.concat(stdout), stderr }));
  // A program that ends early breaks the pipe; its exit status says more than that.
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(opts.stdin);
  try {
    const result = await promise;
    opts.signal.throwIfAborted();
    if (result.code === 127 && /not found/.test(result.stderr)) {
      throw new BuildError("unimplemented", `the program ${program} is needed and not installed`);
    }
    return result;
  } finally {
    clearTimeout(timer);
    opts.signal.removeEventListener("abort", onAbort);
  }
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended by itself.
  }
}
