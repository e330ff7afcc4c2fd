/**
 * Runs the built programs once, so that V8's code caches lie beside them (see `start-program.ts`). Without it the first
 * runs that end well make them. Where a daemon can't run, as without root, that's all that is lost.
 *
 * Usage: scripts/warm-up.ts [BIN]
 */
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startProgram } from "../e2e/support/program.ts";
import { type RunResult, run } from "../e2e/support/run.ts";
import { writeContext } from "../e2e/support/test-bed.ts";

const TIMEOUT_MS = 20_000;
const ATTEMPTS = 100;

const bin = resolve(process.argv[2] ?? join(import.meta.dirname, "..", "bin"));
const folder = mkdtempSync(join(tmpdir(), "kiln-warm-up-"));
const env = { HOME: folder, DOCKER_CONFIG: folder, BUILDX_CONFIG: join(folder, "buildx") };
const address = `unix://${folder}/kilnd.sock`;
const logFile = join(folder, "log");

try {
  await warmUp();
} catch (error) {
  console.error(`no code caches yet: ${error instanceof Error ? error.message : error}`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function warmUp(): Promise<void> {
  const daemon = startProgram(join(bin, "kilnd"), ["--root", join(folder, "root"), "--addr", address], {
    log: openSync(logFile, "a"),
    env,
  });
  try {
    await waitFor(() => call("buildctl", ["--addr", address, "debug", "info"]), daemon.ended);
    const context = writeContext(join(folder, "context"), {
      Dockerfile: "FROM scratch AS a\nCOPY f /\nFROM scratch\nCOPY --from=a /f /g\n",
      f: "text\n",
    });
    must(await call("kiln", ["create", "--driver", "remote", "--name", "warm", "--use", address]));
    for (let i = 0; i < 2; i++) must(await call("kiln", ["build", "--progress=plain", context]));
  } finally {
    await daemon.stop("SIGTERM", TIMEOUT_MS);
  }
}

function call(program: string, args: readonly string[]): Promise<RunResult> {
  return run(join(bin, program), args, { env, timeoutMs: TIMEOUT_MS });
}

function must(result: RunResult): void {
  if (result.code !== 0) throw new Error(result.stderr.slice(-2000));
}

async function waitFor(attempt: () => Promise<RunResult>, ended: () => unknown): Promise<void> {
  for (let i = 0; i < ATTEMPTS && ended() === undefined; i++) {
    if ((await attempt()).code === 0) return;
    await sleep(50);
  }
  throw new Error(`kilnd doesn't answer:\n${readFileSync(logFile, "utf8").slice(-2000)}`);
}
