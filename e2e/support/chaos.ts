import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { killRunning, type RunResult, run } from "./run.ts";
import type { TestBed } from "./test-bed.ts";
import { mountsBelow, processesBelow } from "./test-folder.ts";

/** Settings of a daemon for {@link chaos}: a small cache, so that its collection runs all the time. */
export const CHAOS_SETTINGS = `
[worker.oci]
  gc = true
  [[worker.oci.gcpolicy]]
    all = true
    maxUsedSpace = "40MB"
`;

/** One round: what was killed, and how the daemon came back. */
export interface ChaosRound {
  readonly killedAfterMs: number;
  /** From the start of the new daemon to the first answer. */
  readonly recoveryMs: number;
  /** Steps that were cached when nothing was killed, and how many of them still are. */
  readonly steps: number;
  readonly stillCached: number;
}

/** What {@link chaos} is told. */
export interface ChaosOptions {
  readonly rounds: number;
  /** Of the random moments; the same numbers with the same seed. */
  readonly seed: number;
  readonly onRound?: (round: ChaosRound, index: number) => void;
}

/** The latest moment of a kill after the work has begun. */
const MAX_KILL_MS = 4000;
/** What a daemon that was killed left has to be gone so soon after the next start. */
const GONE_TIMEOUT_MS = 10_000;
const STAGES = 6;

/**
 * Kills the daemon at random moments while it builds, exports an image and a cache, pulls, prunes and collects
 * garbage; starts it again and looks whether anything is left, broken or lost for good.
 *
 * @throws Error that says what was wrong
 */
export async function chaos(bed: TestBed, options: ChaosOptions): Promise<ChaosRound[]> {
  const random = randomNumbers(options.seed);
  const lasting = bed.context("chaos-lasting", { Dockerfile: stages("lasting", 4) });
  await bed.build([lasting]);
  const rounds: ChaosRound[] = [];
  for (let index = 0; index < options.rounds; index++) {
    const work = startWork(bed, index);
    const killedAfterMs = Math.round(50 + random() * MAX_KILL_MS);
    await sleep(killedAfterMs);
    const left = { containers: containersOf(bed), tmp: readdirSync(join(bed.daemon().root, "tmp")) };
    await bed.daemon().kill();
    await killRunning();
    await work;
    const begin = performance.now();
    await bed.startDaemon();
    const recoveryMs = Math.round(performance.now() - begin);
    await assertNothingLeft(bed, left);
    assertStored(bed);
    const { steps, stillCached } = await assertBuilds(bed, lasting);
    await assertSameResult(bed, index);
    const round = { killedAfterMs, recoveryMs, steps, stillCached };
    rounds.push(round);
    options.onRound?.(round, index);
  }
  return rounds;
}

/** Numbers from 0 to 1 (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Stages that write known bytes, joined by copies. */
function stages(name: string, count: number): string {
  const lines: string[] = [];
  for (let i = 0; i < count; i++) {
    lines.push(
      `FROM busybox AS s${i}`,
      `RUN yes ${name}-${i} | head -c 1000000 > /data-${i} && sleep 0.1`,
      `RUN mkdir -p /tree/${i} && for n in 1 2 3 4 5 6 7 8 9; do cp /data-${i} /tree/${i}/f$n; done`,
    );
  }
  lines.push("FROM scratch");
  for (let i = 0; i < count; i++) lines.push(`COPY --from=s${i} /tree /`);
  return `${lines.join("\n")}\n`;
}

function startWork(bed: TestBed, index: number): Promise<unknown> {
  const { folder } = bed;
  const out = join(folder, "chaos-out");
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  const context = (): string =>
    bed.context("chaos-work", { Dockerfile: stages(`round-${index}`, STAGES), "some/file": String(index) });
  const ref = `${bed.registry.host}/chaos/${index}`;
  const calls: string[][] = [
    [
      "build",
      "--cache-to",
      `type=registry,ref=${ref}:cache,mode=max`,
      "--output",
      `type=image,name=${ref}:image,push=true`,
    ],
    [
      "build",
      "--no-cache",
      "--output",
      `type=oci,dest=${out}/image.tar`,
      "--cache-to",
      `type=local,dest=${out}/cache`,
    ],
    ["build", "--no-cache", "--output", `type=local,dest=${out}/tree`],
  ];
  const builds = calls.map((args) => attempt(bed, [...args, context()]));
  const prunes = (async () => {
    for (let i = 0; i < 4; i++) {
      await sleep(700);
      await attempt(bed, ["prune", "--all", "--force", "--filter", "type=regular"]);
    }
  })();
  return Promise.all([...builds, prunes]);
}

/** Whatever comes of it: the daemon is killed meanwhile. */
async function attempt(bed: TestBed, args: readonly string[]): Promise<RunResult | undefined> {
  return await bed.kiln(args, { timeoutMs: 120_000 }).catch(() => undefined);
}

/** Names of the containers that the daemon runs at this moment. */
function containersOf(bed: TestBed): string[] {
  const dir = join(bed.daemon().root, "worker", "executor");
  if (!existsSync(dir)) return [];
  return readdirSync(dir).filter((name) => existsSync(join(dir, name, "cgroup")));
}

async function assertNothingLeft(
  bed: TestBed,
  old: { readonly containers: readonly string[]; readonly tmp: readonly string[] },
): Promise<void> {
  const { root, pid } = bed.daemon();
  const dir = join(root, "worker", "executor");
  const left = async (): Promise<string[]> => {
    const now = existsSync(dir) ? readdirSync(dir) : [];
    const tmp = readdirSync(join(root, "tmp"));
    const own = await family(pid);
    return [
      ...mountsBelow(root).map((point) => `mount ${point}`),
      ...old.containers.filter((id) => now.includes(id)).map((id) => `container ${id}`),
      ...(await cgroupsOf(old.containers)).map((path) => `cgroup ${path}`),
      ...old.tmp.filter((name) => tmp.includes(name)).map((name) => `temporary ${name}`),
      ...processesBelow(root).filter((line) => !own.has(line.split(" ")[0] ?? "")),
    ];
  };
  const end = Date.now() + GONE_TIMEOUT_MS;
  for (let found = await left(); found.length > 0; found = await left()) {
    if (Date.now() > end) throw new Error(`left of the daemon that was killed:\n${found.join("\n")}`);
    await sleep(100);
  }
}

/** A process and all below it. */
async function family(pid: number): Promise<Set<string>> {
  const { stdout } = await run("ps", ["-e", "-o", "pid=,ppid="]);
  const parents = stdout
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const found = new Set([String(pid)]);
  for (let before = 0; before !== found.size; ) {
    before = found.size;
    for (const [child = "", parent = ""] of parents) if (found.has(parent)) found.add(child);
  }
  return found;
}

async function cgroupsOf(ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return [];
  const names = ids.flatMap((id, index) => (index === 0 ? ["-name", id] : ["-o", "-name", id]));
  const { stdout } = await run("find", ["/sys/fs/cgroup", "-type", "d", "(", ...names, ")"]);
  return stdout.split("\n").filter((line) => line !== "");
}

/** Every blob is what its name says; nothing names what isn't there; no lease is left that nothing ends. */
function assertStored(bed: TestBed): void {
  const worker = join(bed.daemon().root, "worker");
  const blobs = join(worker, "content", "blobs", "sha256");
  const names = new Set(readdirSync(blobs));
  for (const name of names) {
    const actual = createHash("sha256")
      .update(readFileSync(join(blobs, name)))
      .digest("hex");
    if (actual !== name) throw new Error(`blob ${name} holds ${actual}`);
  }
  using db = new DatabaseSync(join(worker, "kiln.db"), { readOnly: true });
  const check = db.prepare("PRAGMA integrity_check").get();
  if (check?.["integrity_check"] !== "ok") throw new Error(`database: ${JSON.stringify(check)}`);
  for (const row of db.prepare("SELECT digest FROM blobs").all()) {
    const digest = String(row["digest"]);
    if (!names.has(digest.slice("sha256:".length))) throw new Error(`no file for ${digest}`);
  }
  const refs = new Set(
    db
      .prepare("SELECT id FROM refs")
      .all()
      .map((row) => String(row["id"])),
  );
  const stray = db
    .prepare("SELECT id FROM leases WHERE expires_at IS NULL")
    .all()
    .map((row) => String(row["id"]))
    .filter((id) => !id.startsWith("history/") && !refs.has(id.replace(/^image-documents-/, "")));
  if (stray.length > 0) throw new Error(`leases are left: ${stray.join(", ")}`);
}

async function assertBuilds(
  bed: TestBed,
  context: string,
): Promise<{ readonly steps: number; readonly stillCached: number }> {
  const progress = await bed.build([context]);
  const steps = new Set(
    [...progress.matchAll(/^#(\d+) \[[^\]]*\d\/\d\] (?:RUN|COPY)/gm)].map((match) => match[1]),
  );
  const cached = [...progress.matchAll(/^#(\d+) CACHED$/gm)].filter((match) => steps.has(match[1]));
  return { steps: steps.size, stillCached: cached.length };
}

/** The interrupted work is done again and gives the right bytes, whatever of it is cached. */
async function assertSameResult(bed: TestBed, index: number): Promise<void> {
  const out = join(bed.folder, "chaos-again");
  rmSync(out, { recursive: true, force: true });
  const context = join(bed.folder, "contexts", "chaos-work");
  writeFileSync(join(context, "Dockerfile"), stages(`round-${index}`, STAGES));
  await bed.build(["--output", `type=local,dest=${out}`, context]);
  for (let stage = 0; stage < STAGES; stage++) {
    const line = `round-${index}-${stage}\n`;
    const expected = line.repeat(Math.ceil(1_000_000 / line.length)).slice(0, 1_000_000);
    for (let n = 1; n <= 9; n++) {
      const actual = readFileSync(join(out, String(stage), `f${n}`), "latin1");
      if (actual !== expected)
        throw new Error(`round ${index}: ${stage}/f${n} has ${actual.length} other bytes`);
    }
  }
}
