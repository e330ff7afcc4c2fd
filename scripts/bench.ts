/**
 * Benchmarks of whole builds, with the peer's column when `buildkitd` and `buildx` are on the PATH.
 * Each repetition runs both, one after the other, so that what the machine does besides falls on both.
 *
 * Usage: scripts/bench.ts [--repeat N] [CASE…]
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { BIN } from "../e2e/support/kilnd.ts";
import { type Program, startProgram } from "../e2e/support/program.ts";
import { killRunning, run } from "../e2e/support/run.ts";
import { openTestBed, type TestBed } from "../e2e/support/test-bed.ts";

/** A daemon with the client that drives it. */
interface Side {
  readonly name: string;
  readonly client: string;
  readonly daemon: string;
  readonly daemonArgs: readonly string[];
  readonly socket: string;
  readonly log: number;
  readonly env: Readonly<Record<string, string>>;
  program: Program;
}

/** One benchmark: what is measured, after what isn't. */
interface Case {
  readonly name: string;
  readonly title: string;
  prepare(bed: TestBed): string;
  /** Changes the context before each repetition. */
  touch?(context: string, repetition: number): void;
  readonly args: readonly string[];
  /** Throws the cache away before each repetition. */
  readonly cold?: boolean;
  /** Starts the daemon within the measured time. */
  readonly startDaemon?: boolean;
  /** The time ends with this line of a step's output, not with the build. */
  readonly until?: RegExp;
}

const STEPS = Array.from({ length: 20 }, (_, n) => `RUN echo ${n} > /step-${n}`);
const PARALLEL = 128;
const SMALL_FILES = 50_000;
const LAYER_MIB = 1536;
const START_TIMEOUT_MS = 60_000;

const CASES: readonly Case[] = [
  {
    name: "B1",
    title: "no-op rebuild, 20 steps",
    prepare: (bed) => bed.context("b1", { Dockerfile: ["FROM busybox", ...STEPS, ""].join("\n") }),
    args: [],
  },
  {
    name: "B2",
    title: "cold start of daemon and client, to a step's first output",
    prepare: (bed) => bed.context("b2", { Dockerfile: "FROM busybox\nRUN echo started\n" }),
    args: ["--no-cache"],
    startDaemon: true,
    until: /^#\d+ \d+\.\d+ started$/m,
  },
  {
    name: "B3",
    title: "context of 50,000 files, one changed",
    prepare: (bed) => {
      const context = bed.context("b3", { Dockerfile: "FROM scratch\nCOPY . /\n" });
      for (let n = 0; n < SMALL_FILES; n++) {
        if (n % 500 === 0) mkdirSync(join(context, `d${n / 500}`));
        writeFileSync(join(context, `d${Math.floor(n / 500)}`, `f${n}`), `file ${n}\n`);
      }
      return context;
    },
    touch: (context, repetition) => writeFileSync(join(context, "d0", "f0"), `changed ${repetition}\n`),
    args: [],
  },
  {
    name: "B5",
    title: "128 steps side by side",
    prepare: (bed) => {
      const stages = Array.from(
        { length: PARALLEL },
        (_, n) => `FROM busybox AS s${n}\nRUN echo ${n} > /out-${n}`,
      );
      const copies = Array.from({ length: PARALLEL }, (_, n) => `COPY --from=s${n} /out-${n} /`);
      return bed.context("b5", { Dockerfile: [...stages, "FROM scratch", ...copies, ""].join("\n") });
    },
    args: [],
    cold: true,
  },
  {
    name: "B8",
    title: "export of a 1.5 GiB layer, uncompressed",
    prepare: (bed) =>
      bed.context("b8", {
        Dockerfile: `FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=${LAYER_MIB} 2>/dev/null\n`,
      }),
    args: ["--output", "type=oci,compression=uncompressed,dest=/dev/null"],
  },
];

const { values, positionals } = parseArgs({
  options: { repeat: { type: "string", default: "5" } },
  allowPositionals: true,
});
const repeat = Number(values.repeat);
if (!Number.isInteger(repeat) || repeat < 1 || repeat > 100) throw new Error(`--repeat ${values.repeat}`);
const wanted = CASES.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
if (wanted.length === 0)
  throw new Error(`no such case; there are ${CASES.map(({ name }) => name).join(", ")}`);

// What runs fails then, and everything is taken away.
const stop = (): void => void killRunning();
process.on("SIGINT", stop).on("SIGTERM", stop);
await using bed = await openTestBed("bench");
await bed.daemon().stop();
const sides = [
  await openSide(bed, { name: "kiln", client: join(BIN, "kiln"), daemon: join(BIN, "kilnd"), more: [] }),
];
if (onPath("buildkitd") && onPath("buildx")) {
  const more = ["--oci-worker=true", "--containerd-worker=false"];
  sides.push(await openSide(bed, { name: "buildkit", client: "buildx", daemon: "buildkitd", more }));
} else {
  console.error("buildkitd and buildx aren't on the PATH: no column to compare with");
}
try {
  console.log(
    ["case", ...sides.flatMap(({ name }) => [`${name} ms`, `${name} peak MiB`]), "ratio"].join("\t"),
  );
  for (const one of wanted) await measure(one, bed);
} finally {
  for (const side of sides) await side.program.stop("SIGTERM");
}

async function measure(one: Case, at: TestBed): Promise<void> {
  const context = one.prepare(at);
  const times = new Map<Side, number[]>(sides.map((side) => [side, []]));
  for (const side of sides) await build(side, one, context);
  for (let repetition = 0; repetition < repeat; repetition++) {
    one.touch?.(context, repetition);
    for (const side of sides) {
      if (one.cold) await call(side, ["prune", "--all", "--force"]);
      if (one.startDaemon) await side.program.stop("SIGTERM");
      const from = performance.now();
      if (one.startDaemon) await startSide(side);
      const seenMs = await build(side, one, context);
      times.get(side)?.push(seenMs - from);
    }
  }
  const cells: string[] = [];
  for (const side of sides) cells.push(median(times.get(side) ?? []).toFixed(0), peakMib(side).toFixed(0));
  const [ours, theirs] = sides.map((side) => median(times.get(side) ?? []));
  const ratio = ours === undefined || theirs === undefined ? "-" : (ours / theirs).toFixed(2);
  console.log([`${one.name} ${one.title}`, ...cells, ratio].join("\t"));
}

/** Builds; gives when the build was over, or had shown what the case waits for. */
async function build(side: Side, one: Case, context: string): Promise<number> {
  const { until } = one;
  const args = ["build", until === undefined ? "--progress=quiet" : "--progress=plain", ...one.args, context];
  let shown = "";
  let shownMs: number | undefined;
  await call(side, args, (text) => {
    shown += text;
    if (until?.test(shown)) shownMs ??= performance.now();
  });
  if (until === undefined) return performance.now();
  if (shownMs === undefined) throw new Error(`${side.name} hasn't shown ${until}:\n${shown}`);
  return shownMs;
}

async function call(
  side: Side,
  args: readonly string[],
  onOutput: (text: string) => void = () => undefined,
): Promise<void> {
  const result = await run(side.client, args, { env: side.env, timeoutMs: 900_000, onOutput });
  if (result.code !== 0) throw new Error(`${side.name} ${args.join(" ")}: ${result.stderr.slice(-4000)}`);
}

interface Tools {
  readonly name: string;
  readonly client: string;
  readonly daemon: string;
  readonly more: readonly string[];
}

async function openSide(at: TestBed, tools: Tools): Promise<Side> {
  const { name, client, daemon } = tools;
  const folder = join(at.folder, `side-${name}`);
  mkdirSync(folder);
  const socket = join(folder, "daemon.sock");
  const address = `unix://${socket}`;
  const config = join(at.folder, "kilnd.toml");
  const daemonArgs = ["--root", join(folder, "root"), "--addr", address, "--config", config, ...tools.more];
  const log = openSync(join(folder, "log"), "a");
  const side: Side = {
    name,
    client,
    daemon,
    daemonArgs,
    socket,
    log,
    env: { ...at.env(), BUILDX_CONFIG: join(folder, "buildx"), BUILDX_NO_DEFAULT_ATTESTATIONS: "1" },
    program: startProgram(daemon, daemonArgs, { log }),
  };
  await waitFor(side);
  await call(side, ["create", "--driver", "remote", "--name", name, "--use", address]);
  return side;
}

/** Starts the daemon again and waits for it. */
async function startSide(side: Side): Promise<void> {
  side.program = startProgram(side.daemon, side.daemonArgs, { log: side.log });
  await waitFor(side);
}

/** Waits until the daemon takes connections; both kinds do when they are ready. */
async function waitFor(side: Side): Promise<void> {
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  while (!(await accepts(side.socket))) {
    if (performance.now() > deadlineMs) throw new Error(`${side.daemon} doesn't take connections`);
    await sleep(2);
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

function peakMib(side: Side): number {
  const status = readFileSync(`/proc/${side.program.pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function onPath(program: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
