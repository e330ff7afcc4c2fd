import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

/** A program in the background. */
export interface Program {
  readonly pid: number;
  /** Its exit code or signal, when it has ended. */
  ended(): number | NodeJS.Signals | undefined;
  /** Sends a signal and waits for the end; after `timeoutMs` it is killed and the call fails. */
  stop(signal: NodeJS.Signals, timeoutMs?: number): Promise<number | NodeJS.Signals>;
}

/** Where a program in the background writes. */
export interface ProgramOptions {
  /** File descriptor of its log; both streams go there. */
  readonly log: number;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

const STOP_TIMEOUT_MS = 60_000;

/** Starts a program that runs until it is stopped. */
export function startProgram(program: string, args: readonly string[], options: ProgramOptions): Program {
  const child = spawn(program, args, {
    stdio: ["ignore", options.log, options.log],
    env: { ...process.env, ...options.env },
    detached: true,
  });
  let end: number | NodeJS.Signals | undefined;
  const done = new Promise<number | NodeJS.Signals>((resolve) => {
    const finish = (how: number | NodeJS.Signals) => {
      end = how;
      resolve(how);
    };
    child.on("error", () => finish(127));
    child.on("exit", (code, signal) => finish(signal ?? code ?? 128));
  });
  return {
    pid: child.pid ?? -1,
    ended: () => end,
    async stop(signal, timeoutMs = STOP_TIMEOUT_MS) {
      if (end !== undefined) return end;
      child.kill(signal);
      const timer = new AbortController();
      const late = sleep(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined);
      const how = await Promise.race([done, late]);
      timer.abort();
      if (how !== undefined) return how;
      child.kill("SIGKILL");
      await done;
      throw new Error(`${program} (${child.pid}) hasn't ended ${timeoutMs} ms after ${signal}`);
    },
  };
}
