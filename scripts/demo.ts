/**
 * `make demo`: builds a real multi-stage image from a base image made of Debian's busybox, runs it, builds it again
 * from the cache, and takes everything away.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runImage, unpackFromRegistry } from "../e2e/support/image-run.ts";
import { BIN } from "../e2e/support/kilnd.ts";
import { killRunning, run } from "../e2e/support/run.ts";
import { openTestBed, type TestBed } from "../e2e/support/test-bed.ts";

const EXAMPLE = join(import.meta.dirname, "..", "examples", "demo");

/** Program → the Debian package that has it. */
const NEEDED: Readonly<Record<string, string>> = {
  crun: "crun",
  "docker-registry": "docker-registry",
  skopeo: "skopeo",
  umoci: "umoci",
  busybox: "busybox-static",
};

/** What is missing on this machine, as one sentence each. */
async function missing(): Promise<string[]> {
  const problems: string[] = [];
  if (process.platform !== "linux") return ["Kiln builds on Linux only."];
  if (process.getuid?.() !== 0) problems.push("Builds need root here: run `sudo make demo`.");
  if (!existsSync(join(BIN, "kilnd"))) problems.push("bin/kilnd is missing: run `make build`.");
  for (const [program, name] of Object.entries(NEEDED)) {
    const found = await run("sh", ["-c", `command -v ${program}`]);
    if (found.code !== 0) problems.push(`${program} is missing: install the Debian package ${name}.`);
  }
  return problems;
}

function say(text: string): void {
  process.stdout.write(`\n\x1b[1m==> ${text}\x1b[0m\n`);
}

let stopped = false;

/** Ends what runs; the demo then fails where it is and takes everything away. */
function stop(): void {
  process.stderr.write("\nstopping …\n");
  stopped = true;
  void killRunning();
}

function goOn(): void {
  if (stopped) throw new Error("stopped");
}

/** Builds and pushes the example, showing kiln's own progress; gives the seconds it took. */
async function build(bed: TestBed, tag: string): Promise<number> {
  const begin = performance.now();
  const result = await bed.kiln(["build", "--progress=plain", "--push", "-t", tag, EXAMPLE], {
    onOutput: (text) => process.stdout.write(text),
  });
  if (result.code !== 0) throw new Error(`kiln build ended with ${result.code}`);
  return (performance.now() - begin) / 1000;
}

async function demo(): Promise<void> {
  say("Starting a registry on the loopback with a busybox image, and kilnd");
  await using bed = await openTestBed("demo");
  goOn();
  const tag = `${bed.registry.host}/demo:latest`;
  say(`kiln build --push -t ${tag} examples/demo`);
  const first = await build(bed, tag);
  goOn();
  say("Pulling it back with skopeo, running it with crun");
  const image = await unpackFromRegistry(bed.folder, tag);
  const { code, stdout, stderr } = await runImage(image);
  if (code !== 0) throw new Error(`the image's command ended with ${code}: ${stderr}`);
  process.stdout.write(stdout);
  goOn();
  say("Building it again");
  const second = await build(bed, tag);
  say(
    `First build ${first.toFixed(1)} s, second ${second.toFixed(1)} s. Everything has been taken away again.`,
  );
}

const problems = await missing();
if (problems.length > 0) {
  console.error(`The demo can't run:\n${problems.map((problem) => `  ${problem}`).join("\n")}`);
  process.exitCode = 1;
} else {
  process.on("SIGINT", stop).on("SIGTERM", stop);
  await demo().catch((error: unknown) => {
    if (!stopped) console.error(`The demo failed: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = stopped ? 130 : 1;
  });
}
