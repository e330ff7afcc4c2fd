import { type ChildProcess, spawn } from "node:child_process";

/** How a program is run. */
export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment of this process; `undefined` takes a name away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string;
  /** After this long the program and its children are killed and the call fails. */
  readonly timeoutMs?: number;
  /** Sends the program SIGINT when it aborts, as Ctrl-C does. */
  readonly signal?: AbortSignal;
  /** Gets what the program prints as it comes, both streams. */
  readonly onOutput?: (text: string) => void;
}

/** How a program ended. */
export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const DEFAULT_TIMEOUT_MS = 180_000;

/** Programs that haven't ended yet. */
const running = new Map<ChildProcess, Promise<void>>();

/** Kills whatever `run` and `start` have started, and waits for the ends. */
export async function killRunning(): Promise<void> {
  for (const child of running.keys()) killGroup(child.pid);
  await Promise.all(running.values());
}

/** Starts a program in a process group of its own, so that all of it can be killed. */
export function start(program: string, args: readonly string[], options: RunOptions = {}): ChildProcess {
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  running.set(child, ended);
  child.on("close", () => running.delete(child));
  return child;
}

/** Kills a program with all of its process group; one that has ended already is no error. */
export function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Runs a program to its end, whatever its exit code. Fails when it can't be started or takes too long. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { promise, resolve, reject } = Promise.withResolvers<RunResult>();
  const child = start(program, args, options);
  const out: string[] = [];
  const err: string[] = [];
  let timedOut = false;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup(child.pid);
  }, timeoutMs);
  options.signal?.addEventListener("abort", () => child.kill("SIGINT"));
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    out.push(text);
    options.onOutput?.(text);
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    err.push(text);
    options.onOutput?.(text);
  });
  child.stdin?.on("error", () => {
    // The program may end without reading its input.
  });
  child.stdin?.end(options.input ?? "");
  child.on("error", (error) => {
    clearTimeout(timer);
    reject(new Error(`${program} can't be started: ${error.message}`));
  });
  child.on("close", (code, signal) => {
    clearTimeout(timer);
    const result = { code: code ?? 128, stdout: out.join(""), stderr: err.join("") };
    if (timedOut)
      reject(new Error(`${commandLine(program, args)} took over ${timeoutMs} ms\n${tail(result)}`));
    else resolve(signal === null ? result : { ...result, stderr: `${result.stderr}\nended by ${signal}` });
  });
  return promise;
}

/** Runs a program that has to succeed, and gives what it printed on stdout. */
export async function must(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(program, args, options);
  if (result.code !== 0) {
    throw new Error(`${commandLine(program, args)} ended with ${result.code}\n${tail(result)}`);
  }
  return result.stdout;
}

function commandLine(program: string, args: readonly string[]): string {
  return [program, ...args].join(" ").slice(0, 400);
}

function tail(result: RunResult): string {
  return `${result.stdout.slice(-4000)}\n${result.stderr.slice(-8000)}`;
}
