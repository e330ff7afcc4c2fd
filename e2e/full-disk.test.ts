import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import type { RunResult } from "./support/run.ts";
import { mountTmpfs, openTestBed, type TestBed } from "./support/test-bed.ts";

const ROOT_MIB = 96;
const MIB = 1 << 20;

let bed: TestBed;

before(async () => {
  bed = await openTestBed("full-disk", { rootSizeMib: ROOT_MIB });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

beforeEach(async () => {
  rmSync(ballast(), { force: true });
  const { code, stderr } = await bed.kiln(["prune", "--all", "--force"]);
  assert.equal(code, 0, stderr);
  assert.ok(freeBytes() > (ROOT_MIB - 10) * MIB, `only ${freeBytes()} bytes are free`);
});

function ballast(): string {
  return join(bed.daemon().root, "ballast");
}

function freeBytes(folder = bed.daemon().root): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** Fills the daemon's disk up to so many bytes. */
function fill(leaveBytes: number): void {
  const fd = openSync(ballast(), "a");
  for (let left = freeBytes() - leaveBytes; left > 0; left -= MIB) {
    writeSync(fd, new Uint8Array(Math.min(left, MIB)));
  }
  closeSync(fd);
}

function assertFull(result: RunResult, what: RegExp): void {
  assert.notEqual(result.code, 0);
  assert.match(result.stderr, what);
  assert.doesNotMatch(result.stderr, /BuildError|transaction|rollback/);
  // The daemon lives: its log holds nothing that nobody caught.
  assert.doesNotMatch(bed.daemon().log(), /msg=uncaught/);
}

const build = (...args: string[]): Promise<RunResult> =>
  bed.kiln(["build", "--progress=plain", ...args], { timeoutMs: 60_000 });

async function assertBuilds(...args: string[]): Promise<string> {
  const { code, stderr } = await build(...args);
  assert.equal(code, 0, stderr);
  return stderr;
}

const NO_SPACE = /no space left on device/;

test("a pull that doesn't fit says so; freeing space is enough to go on", async () => {
  const context = bed.context("pull", { Dockerfile: "FROM busybox\nRUN echo fine > /x && cat /x\n" });
  fill(MIB);
  assertFull(await build(context), NO_SPACE);
  rmSync(ballast());
  await assertBuilds(context);
});

test("a step that fills the disk fails by itself, and its files go with it", async () => {
  const context = (name: string, mib: number): string =>
    bed.context(name, { Dockerfile: `FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=${mib}\n` });
  const result = await build(context("run-much", 2 * ROOT_MIB));
  assertFull(result, /'\/big': No space left on device/);
  assert.match(result.stderr, /did not complete successfully: exit code: 1/);
  assert.ok(freeBytes() > (ROOT_MIB - 20) * MIB, `only ${freeBytes()} bytes are free`);
  await assertBuilds(context("run-less", 20));
});

test("files that don't fit are told of by name, and what came of them goes", async () => {
  const context = bed.context("copy", { Dockerfile: "FROM busybox\nCOPY big /big\n" });
  writeFileSync(join(context, "big"), Buffer.alloc(40 * MIB, 1));
  fill(30 * MIB);
  assertFull(await build(context), /big: .*no space left on device/);
  rmSync(ballast());
  await assertBuilds(context);
});

test("with no byte free the cache can be read and pruned, and the daemon starts", async () => {
  const context = bed.context("full", { Dockerfile: "FROM busybox\nRUN head -c 20000000 /dev/zero > /r\n" });
  await assertBuilds(context);
  fill(0);
  assertFull(
    await build(bed.context("more", { Dockerfile: "FROM busybox\nRUN echo more > /r\n" })),
    NO_SPACE,
  );
  assert.equal((await bed.kiln(["du"])).code, 0);
  assert.equal((await bed.kiln(["history", "ls"])).code, 0);
  await bed.restart();
  const pruned = await bed.kiln(["prune", "--all", "--force"]);
  assert.equal(pruned.code, 0, pruned.stderr);
  assert.ok(freeBytes() > 19 * MIB, `only ${freeBytes()} bytes are free`);
  assert.doesNotMatch(await assertBuilds(context), /CACHED/);
});

test("an export that doesn't fit on the daemon's disk leaves nothing; with space it is whole", async () => {
  const context = bed.context("export", {
    Dockerfile: "FROM busybox\nRUN head -c 20000000 /dev/urandom > /r\n",
  });
  await assertBuilds(context);
  fill(5 * MIB);
  const file = join(bed.folder, "image.tar");
  assertFull(await build(context, "--output", `type=oci,dest=${file}`), NO_SPACE);
  assert.ok(!existsSync(file));
  const cache = join(bed.folder, "cache");
  assertFull(await build(context, "--cache-to", `type=local,mode=max,dest=${cache}`), NO_SPACE);
  assert.ok(!existsSync(join(cache, "index.json")));
  rmSync(ballast());
  assert.match(await assertBuilds(context, "--output", `type=oci,dest=${file}`), /CACHED/);
  await bed.kiln(["build", "--output", `type=oci,dest=${file}`, context]);
});

interface Output {
  readonly name: string;
  readonly args: (out: string) => string[];
  /** What stands there from an earlier build; it stays. */
  readonly kept?: string;
}

const OUTPUTS: readonly Output[] = [
  { name: "a tar file", args: (out) => ["--output", `type=tar,dest=${out}/old`], kept: "old" },
  { name: "an OCI file", args: (out) => ["--output", `type=oci,dest=${out}/old`], kept: "old" },
  { name: "a Docker file", args: (out) => ["--output", `type=docker,dest=${out}/old`], kept: "old" },
  { name: "a folder", args: (out) => ["--output", `type=local,dest=${out}`], kept: "r" },
  { name: "an OCI layout", args: (out) => ["--output", `type=oci,tar=false,dest=${out}/layout`] },
  { name: "a cache", args: (out) => ["--cache-to", `type=local,mode=max,dest=${out}/cache`] },
  { name: "a metadata file", args: (out) => ["--metadata-file", `${out}/old`], kept: "old" },
  {
    name: "a file with the image's id",
    args: (out) => ["--iidfile", `${out}/id`, "--output", "type=oci,dest=/dev/null"],
  },
];

for (const output of OUTPUTS) {
  test(`the client's disk is full: ${output.name}`, async () => {
    const out = join(bed.folder, "out");
    await using _mounted = await mountTmpfs(out, 1);
    const context = bed.context("client", { Dockerfile: "FROM scratch\nCOPY r /r\n" });
    writeFileSync(join(context, "r"), randomBytes(3_000_000));
    if (output.kept !== undefined) writeFileSync(join(out, output.kept), "from an earlier build");
    const isSmall = /metadata|id$/.test(output.name);
    const rest = join(out, "rest");
    if (isSmall) {
      const fd = openSync(rest, "a");
      assert.throws(() => {
        for (;;) writeSync(fd, new Uint8Array(4096));
      }, NO_SPACE);
      closeSync(fd);
    }
    const result = await build(...output.args(out), context);
    assertFull(result, NO_SPACE);
    assert.match(result.stderr, new RegExp(`${out}|/r: no space`), "the message names what");
    assert.equal(result.code, 1, result.stderr);
    if (output.kept !== undefined) {
      assert.equal(readFileSync(join(out, output.kept), "utf8"), "from an earlier build");
      assert.deepEqual(
        readdirSync(out).filter((name) => name !== "rest"),
        [output.kept],
      );
    }
    assert.ok(!existsSync(join(out, "id")));
    for (const name of ["layout", "cache"]) assert.ok(!existsSync(join(out, name, "index.json")), name);
    rmSync(rest, { force: true });
    if (isSmall) await assertBuilds(...output.args(out), context);
  });
}

test("a folder of the client that can't be written says so", async () => {
  const file = join(bed.folder, "a-file");
  writeFileSync(file, "");
  mkdirSync(join(bed.folder, "dir"), { recursive: true });
  const context = bed.context("no-dir", { Dockerfile: "FROM busybox\n" });
  const result = await build("--output", `type=local,dest=${file}/below`, context);
  assert.equal(result.code, 1);
  assert.match(result.stderr, /a-file/);
});
