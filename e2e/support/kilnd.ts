import { openSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Program, startProgram } from "./program.ts";

/** Where the built programs are. `KILN_BIN` names another folder. */
export const BIN = process.env.KILN_BIN ?? join(import.meta.dirname, "..", "..", "bin");

/** A `kilnd` with a root and socket of its own. */
export interface LocalDaemon extends AsyncDisposable {
  readonly address: string;
  readonly root: string;
  readonly pid: number;
  /** Everything it has logged, over all its starts in this folder. */
  log(): string;
  /** Ends it in order; gives the exit code. */
  stop(): Promise<number | NodeJS.Signals>;
  /** Ends it at once, with all that its process group runs left to their fate. */
  kill(): Promise<void>;
}

const START_ATTEMPTS = 600;

/**
 * Starts the built daemon below a folder with docker.io mirrored to a registry, and waits for its socket. `settings`
 * are further tables of its configuration.
 */
export async function startKilnd(folder: string, registryHost: string, settings = ""): Promise<LocalDaemon> {
  const config = join(folder, "kilnd.toml");
  const root = join(folder, "root");
  const socket = join(folder, "kilnd.sock");
  const logFile = join(folder, "kilnd.log");
  writeFileSync(
    config,
    `insecure-entitlements = ["network.host"]
[registry."docker.io"]
  mirrors = ["${registryHost}"]
[registry."${registryHost}"]
  http = true
${settings}`,
  );
  const address = `unix://${socket}`;
  const args = ["--root", root, "--addr", address, "--config", config, "--debug"];
  const program = startProgram(join(BIN, "kilnd"), args, { log: openSync(logFile, "a") });
  await waitForSocket(program, socket, logFile);
  return {
    address,
    root,
    pid: program.pid,
    log: () => readFileSync(logFile, "utf8"),
    stop: () => program.stop("SIGTERM"),
    kill: async () => {
      await program.stop("SIGKILL");
    },
    [Symbol.asyncDispose]: async () => {
      await program.stop("SIGTERM");
    },
  };
}

async function waitForSocket(program: Program, socket: string, logFile: string): Promise<void> {
  for (let attempt = 0; !(await accepts(socket)); attempt++) {
    if (program.ended() !== undefined || attempt >= START_ATTEMPTS) {
      await program.stop("SIGKILL");
      throw new Error(`kilnd doesn't answer:\n${readFileSync(logFile, "utf8").slice(-4000)}`);
    }
    await sleep(100);
  }
}

function accepts(socket: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const connection = connect(socket);
  connection.on("connect", () => {
    connection.destroy();
    resolve(true);
  });
  connection.on("error", () => resolve(false));
  return promise;
}
