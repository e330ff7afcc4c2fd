import { openSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Program, startProgram } from "./program.ts";

/** A `docker-registry` on the loopback. */
export interface LocalRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly host: string;
}

const START_ATTEMPTS = 300;

/** A port on the loopback that nobody listens on. */
export function freePort(): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const server = createServer();
  server.on("error", reject);
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    server.close(() => resolve(port));
  });
  return promise;
}

/** Starts a registry that keeps its data below a folder, and waits until it answers. */
export async function startRegistry(folder: string): Promise<LocalRegistry> {
  const host = `127.0.0.1:${await freePort()}`;
  const config = join(folder, "registry.json");
  writeFileSync(
    config,
    JSON.stringify({
      version: "0.1",
      log: { level: "warn" },
      storage: {
        filesystem: { rootdirectory: join(folder, "registry") },
        delete: { enabled: true },
      },
      http: { addr: host },
    }),
  );
  const log = openSync(join(folder, "registry.log"), "a");
  const program = startProgram("docker-registry", ["serve", config], { log });
  for (let attempt = 0; program.ended() !== undefined || !(await answers(host)); attempt++) {
    if (program.ended() !== undefined || attempt >= START_ATTEMPTS) {
      await program.stop("SIGKILL");
      throw new Error(`docker-registry doesn't answer, see ${join(folder, "registry.log")}`);
    }
    await sleep(100);
  }
  return { host, [Symbol.asyncDispose]: () => stop(program) };
}

async function stop(program: Program): Promise<void> {
  await program.stop("SIGTERM");
}

async function answers(host: string): Promise<boolean> {
  try {
    return (await fetch(`http://${host}/v2/`)).ok;
  } catch {
    return false; // Not up yet.
  }
}
