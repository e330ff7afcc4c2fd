import { closeSync, constants, openSync } from "node:fs";
import { killProcess, type ReapedChild, reapChild, spawnProgram } from "./libc.ts";
import type { StdioPaths } from "./protocol.ts";

/** Called with the code of a child that has ended. */
export type OnExit = (code: number) => void;

/** Children may have ended without a SIGCHLD of their own: signals that arrive together are one. */
const SWEEP_MS = 1000;

/**
 * The children of this process. Nothing else in it may start or wait for processes: as the first process of
 * its namespace it also collects the orphans that its children leave.
 */
export class ProcessTable {
  readonly #waiting = new Map<number, OnExit>();

  constructor() {
    process.on("SIGCHLD", () => this.#reap());
    setInterval(() => this.#reap(), SWEEP_MS).unref();
  }

  /** Starts a program; `onExit` is called once, later. Returns its id. */
  start(argv: readonly string[], env: readonly string[], stdio: StdioPaths, onExit: OnExit): number {
    const fds: number[] = [];
    try {
      for (const stream of openStdio(stdio)) fds.push(stream());
      const [stdin = 0, stdout = 0, stderr = 0] = fds;
      return this.startWith(argv, env, [stdin, stdout, stderr], onExit);
    } finally {
      for (const fd of new Set(fds)) closeSync(fd);
    }
  }

  /** As {@link start}, with open descriptors, which stay the caller's. */
  startWith(
    argv: readonly string[],
    env: readonly string[],
    fds: readonly [number, number, number],
    onExit: OnExit,
  ): number {
    const pid = spawnProgram({ path: argv[0] ?? "", argv, env, fds });
    this.#waiting.set(pid, onExit);
    return pid;
  }

  /** Kills the process group of every child; their ends are still reported. */
  killAll(signal: number): void {
    for (const pid of this.#waiting.keys()) killProcess(-pid, signal);
  }

  #reap(): void {
    const ended: ReapedChild[] = [];
    for (let child = reapChild(); child; child = reapChild()) ended.push(child);
    for (const { pid, code } of ended) {
      const onExit = this.#waiting.get(pid);
      this.#waiting.delete(pid);
      onExit?.(code);
    }
  }
}

/** Openers for the three streams, in order. */
function openStdio(stdio: StdioPaths): (() => number)[] {
  if (stdio.kind === "tty") {
    const open = (): number => openSync(stdio.path, constants.O_RDWR | constants.O_NOCTTY);
    return [open, open, open];
  }
  return [
    () => openSync(stdio.stdin ?? "/dev/null", constants.O_RDONLY),
    () => openSync(stdio.stdout ?? "/dev/null", constants.O_WRONLY),
    () => openSync(stdio.stderr ?? "/dev/null", constants.O_WRONLY),
  ];
}
