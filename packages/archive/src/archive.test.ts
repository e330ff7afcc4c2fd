import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { AT, getXattr, lstat, mknodAt, S, setXattr } from "@kiln/sys";
import fc from "fast-check";
import * as archive from "./index.ts";
import type { TarHeader } from "./types.ts";

const root = process.geteuid?.() === 0;
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "kiln-archive"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

type Entry = Partial<TarHeader> & { readonly name: string; readonly content?: string };

async function tarOf(...entries: Entry[]): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const writer = new archive.TarWriter((chunk) => void parts.push(chunk));
  for (const { content, ...header } of entries) await writer.entry({ ...header }, content);
  await writer.finish();
  return Buffer.concat(parts);
}

async function* stream(bytes: Uint8Array, step = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of source) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

function apply(bytes: Uint8Array, to: string, opts: Partial<archive.ApplyOptions> = {}) {
  return archive.applyLayer(stream(bytes), to, { whiteouts: "remove", ...opts });
}

async function entriesOf(bytes: Uint8Array): Promise<archive.TarEntry[]> {
  const entries: archive.TarEntry[] = [];
  for await (const entry of archive.tarEntries(stream(bytes, 333))) entries.push(entry);
  return entries;
}

test("headers survive a round trip in every dialect", async () => {
  const name = fc
    .string({ unit: "binary", minLength: 1, maxLength: 300 })
    .filter((s) => !/\0|\/$/.test(s) && s.isWellFormed());
  const arbitrary = fc.record({
    name,
    uid: fc.nat(2 ** 31),
    mode: fc.nat(0o7777),
    mtimeNs: fc.bigInt(-(2n ** 60n), 2n ** 62n),
    value: fc.uint8Array({ maxLength: 40 }),
    format: fc.constantFrom("pax", undefined) as fc.Arbitrary<"pax" | undefined>,
    content: fc.string({ unit: "grapheme-ascii", maxLength: 2000 }),
  });
  await fc.assert(
    fc.asyncProperty(arbitrary, async ({ value, format, content, ...rest }) => {
      const xattrs = new Map<string, Uint8Array>([["user.bin", value]]);
      const bytes = await tarOf({ ...rest, ...(format ? { format, xattrs } : {}), content });
      const [entry] = await entriesOf(bytes);
      assert.equal(entry?.header.name, rest.name);
      assert.equal(entry.header.uid, rest.uid);
      assert.equal(entry.header.mode, rest.mode);
      assert.equal(entry.content.toString(), content);
      if (!format) return;
      assert.equal(entry.header.mtimeNs, rest.mtimeNs);
      assert.deepEqual(Buffer.from(entry.header.xattrs?.get("user.bin") ?? []), Buffer.from(value));
    }),
    { numRuns: 150 },
  );
});

test("GNU tar reads what is written and its dialects are read, sparse files too", async () => {
  const bytes = await tarOf({ name: "a/", type: "dir" }, { name: `a/${"ü".repeat(120)}`, content: "long" });
  const listed = spawnSync("tar", ["-tf", "-"], { input: bytes, env: { ...process.env, LC_ALL: "C.UTF-8" } });
  assert.match(listed.stdout.toString(), /^a\/\na\/\S{120}/);
  mkdirSync(join(dir, "s"));
  spawnSync(
    "sh",
    [
      "-c",
      "truncate -s 3000000 s/f && printf end >> s/f && printf mid | dd of=s/f bs=1 seek=1000000 conv=notrunc status=none",
    ],
    { cwd: dir },
  );
  const wanted = readFileSync(join(dir, "s/f"));
  for (const format of [
    "--format=gnu",
    "--format=pax --sparse-version=0.0",
    "--format=pax --sparse-version=0.1",
    "--format=pax --sparse-version=1.0",
  ]) {
    const made = spawnSync("tar", [...format.split(" "), "-S", "-cf", "-", "s/f"], {
      cwd: dir,
      maxBuffer: 1 << 24,
    });
    assert.ok(made.stdout.length < 1_000_000, format);
    const [entry] = await entriesOf(made.stdout);
    assert.equal(entry?.header.name, "s/f");
    assert.ok(entry.content.equals(wanted), format);
  }
});

test("broken archives are refused", async () => {
  const good = await tarOf({ name: "f", content: "x".repeat(600) });
  await assert.rejects(entriesOf(good.subarray(0, 900)), { code: "invalid_argument" });
  const flipped = Buffer.from(good);
  flipped[3] = 1;
  await assert.rejects(entriesOf(flipped), /invalid tar header/);
  const negative = archive.encodeTarHeader({
    name: "f",
    type: "file",
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeNs: 0n,
  });
  negative.write("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 124, "latin1");
  let sum = 0;
  for (let i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? 32 : (negative[i] as number);
  negative.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  await assert.rejects(entriesOf(negative), /negative size/);
  const huge = archive.encodeTarHeader({
    name: "f",
    type: "file",
    mode: 0,
    uid: 0,
    gid: 0,
    size: 2 ** 45,
    mtimeNs: 0n,
  });
  await assert.rejects(entriesOf(huge), { code: "resource_exhausted" });
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 512, maxLength: 2048 }), (noise) => {
      const reader = new archive.TarReader({ entry: () => 0, data: () => 0, hole: () => 0, end: () => 0 });
      assert.throws(() => {
        reader.write(Uint8Array.of(1, ...noise));
        reader.finish();
      });
    }),
    { numRuns: 200 },
  );
});

test("nothing is written outside the root", async () => {
  const inside = join(dir, "root");
  const outside = join(dir, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "victim"), "safe");
  const cases: Entry[][] = [
    [{ name: "../outside/new", content: "x" }],
    [
      { name: "l", type: "symlink", linkname: outside },
      { name: "l/new", content: "x" },
    ],
    [{ name: "l", type: "symlink", linkname: "../outside" }, { name: "l/.wh.victim" }],
    [{ name: "l", type: "symlink", linkname: outside }, { name: "l/.wh..wh..opq" }],
    [
      { name: "l", type: "symlink", linkname: outside },
      { name: "h", type: "link", linkname: "l/victim" },
    ],
    [{ name: "h", type: "link", linkname: "../outside/victim" }],
    [
      { name: "l", type: "symlink", linkname: join(outside, "victim") },
      { name: "l", content: "new" },
    ],
    [
      { name: "l", type: "symlink", linkname: outside },
      { name: "l/", type: "dir", mode: 0o777 },
    ],
    [
      { name: "l", type: "symlink", linkname: outside },
      { name: "l/d/", type: "dir", mode: 0o777 },
    ],
    [
      { name: "l", type: "symlink", linkname: join(outside, "victim") },
      { name: "m", type: "link", linkname: "l", mode: 0 },
    ],
    [{ name: ".wh..", content: "" }],
    [{ name: "a/.wh...", content: "" }],
  ];
  for (const entries of cases) {
    for (const whiteouts of root ? (["remove", "overlay"] as const) : (["remove"] as const)) {
      for (const layers of [[entries], entries.map((entry) => [entry])]) {
        rmSync(inside, { recursive: true, force: true });
        mkdirSync(inside);
        for (const layer of layers)
          await apply(await tarOf(...layer), inside, { whiteouts }).catch(() => undefined);
        assert.deepEqual(readdirSync(outside), ["victim"], JSON.stringify(entries));
        assert.equal(readFileSync(join(outside, "victim"), "utf8"), "safe");
        assert.notEqual(lstatSync(join(outside, "victim")).mode & 0o777, 0);
        assert.deepEqual(readdirSync(dir).sort(), ["outside", "root"]);
      }
    }
  }
});

test("what is in the way is replaced, directories are merged, times are set", async () => {
  const to = join(dir, "r");
  mkdirSync(join(to, "d/keep"), { recursive: true });
  writeFileSync(join(to, "f"), "old");
  const mtimeNs = 1_600_000_000_123_456_789n;
  const result = await apply(
    await tarOf(
      { name: "./", type: "dir" },
      { name: "d", type: "dir", mode: 0o2750, mtimeNs, format: "pax" },
      { name: "d/x", content: "1", mode: 0o4711, mtimeNs, format: "pax" },
      { name: "f/", type: "dir", mode: 0o700 },
      { name: "e/g/h", content: "deep" },
      { name: "e/l", type: "symlink", linkname: "/absolute" },
      { name: "hard", type: "link", linkname: "d/x", mode: 0o4711, mtimeNs, format: "pax" },
      { name: "fifo", type: "fifo", mode: 0o600 },
    ),
    to,
  );
  assert.equal(lstat(join(to, "d")).mode, S.IFDIR | 0o2750);
  assert.equal(lstat(join(to, "d")).mtimeNs, mtimeNs);
  assert.equal(lstat(join(to, "d/x")).mode, S.IFREG | 0o4711);
  assert.equal(lstat(join(to, "hard")).ino, lstat(join(to, "d/x")).ino);
  assert.deepEqual(readdirSync(join(to, "d")).sort(), ["keep", "x"]);
  assert.equal(readlinkSync(join(to, "e/l")), "/absolute");
  assert.deepEqual(result.implicitDirs, ["/e", "/e/g"]);
  assert.equal(result.sizeBytes, 5);
});

test("a directory or link that is replaced takes what was open below it along", async () => {
  const to = join(dir, "r");
  mkdirSync(to);
  await apply(
    await tarOf(
      { name: "d/e/", type: "dir" },
      { name: "d/e/x", content: "1" },
      { name: "l", type: "symlink", linkname: "d" },
      { name: "l/y", content: "2" },
      { name: "l", type: "dir" },
      { name: "l/z", content: "3" },
      { name: "d", type: "symlink", linkname: "l" },
      { name: "d/e/w", content: "4" },
    ),
    to,
  );
  assert.deepEqual(readdirSync(join(to, "l"), { recursive: true }).sort(), ["e", "e/w", "z"]);
});

test("whiteouts remove only what lower layers had", async () => {
  const to = join(dir, "r");
  mkdirSync(join(to, "d/old"), { recursive: true });
  mkdirSync(join(to, "o/old"), { recursive: true });
  writeFileSync(join(to, "gone"), "");
  await apply(
    await tarOf(
      { name: "d/new", content: "1" },
      { name: ".wh.d" },
      { name: "o/new/x", content: "1" },
      { name: "o/.wh..wh..opq" },
      { name: ".wh.gone" },
      { name: ".wh.never" },
    ),
    to,
  );
  assert.deepEqual(readdirSync(to).sort(), ["d", "o"]);
  assert.deepEqual(readdirSync(join(to, "d")), ["new"]);
  assert.deepEqual(readdirSync(join(to, "o")), ["new"]);
});

test("layers keep attributes and owners; overlay whiteouts go both ways", { skip: !root }, async () => {
  const upper = join(dir, "u");
  const lower = join(dir, "l");
  mkdirSync(join(lower, "opaque/a"), { recursive: true });
  mkdirSync(join(lower, "implicit"), { mode: 0o711 });
  writeFileSync(join(lower, "gone"), "1");
  mkdirSync(upper);
  const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");
  const layer = await tarOf(
    { name: ".wh.gone" },
    {
      name: "cap",
      content: "c",
      uid: 12,
      gid: 34,
      xattrs: new Map([
        ["security.capability", capability],
        ["trusted.overlay.redirect", Buffer.from("/etc")],
      ]),
      format: "pax",
    },
    { name: "implicit/x", content: "1" },
    { name: "opaque/", type: "dir", mode: 0o755 },
    { name: "opaque/.wh..wh..opq" },
    { name: "opaque/b", content: "1" },
    { name: "null", type: "char", devmajor: 1, devminor: 3, mode: 0o666 },
  );
  const gz = gzipSync(layer);
  const result = await apply(gz, upper, { whiteouts: "overlay", lowerDirs: [lower] });
  assert.equal(result.diffId, `sha256:${createHash("sha256").update(layer).digest("hex")}`);
  assert.equal(lstat(join(upper, "gone")).mode & S.IFMT, S.IFCHR);
  assert.equal(getXattr(join(upper, "opaque"), "trusted.overlay.opaque")?.toString(), "y");
  assert.deepEqual(getXattr(join(upper, "cap"), "security.capability"), capability);
  assert.equal(getXattr(join(upper, "cap"), "trusted.overlay.redirect"), undefined);
  assert.equal(lstat(join(upper, "cap")).uid, 12);
  assert.equal(lstat(join(upper, "implicit")).mode & 0o7777, 0o711);
  assert.equal(lstat(join(upper, "null")).rdevMinor, 3);
  const diff = gather(archive.diffLayer({ lowerDir: lower, upperDir: upper, overlayUpperDir: upper }));
  const names = (await entriesOf(diff)).map((entry) => entry.header.name);
  assert.deepEqual(names, [
    "cap",
    ".wh.gone",
    "implicit/",
    "implicit/x",
    "null",
    "opaque/",
    "opaque/.wh.a",
    "opaque/b",
  ]);
  await assert.rejects(
    apply(await tarOf({ name: "w", type: "char" }), upper, { whiteouts: "overlay" }),
    /whiteout/,
  );
});

function gather(pieces: Iterable<Uint8Array>): Buffer {
  const copies: Buffer[] = [];
  for (const piece of pieces) copies.push(Buffer.from(piece));
  return Buffer.concat(copies);
}

test("differences are written as containerd writes them", { skip: !root }, async () => {
  const lower = join(dir, "l");
  const upper = join(dir, "u");
  for (const tree of [lower, upper]) {
    mkdirSync(join(tree, "dir/sub"), { recursive: true });
    for (const name of ["same", "cut", "h1"]) writeFileSync(join(tree, name), "x");
    linkSync(join(tree, "h1"), join(tree, "dir/h2"));
    writeFileSync(join(tree, "dir/sub/f"), tree === lower ? "1" : "22");
    for (const name of ["same", "cut", "h1", "dir/sub/f"]) utimesSync(join(tree, name), 1e9, 1e9);
  }
  mkdirSync(join(lower, "gone/x"), { recursive: true });
  writeFileSync(join(upper, "cut"), "y");
  utimesSync(join(upper, "cut"), 1e9, 1e9);
  linkSync(join(upper, "h1"), join(upper, "h3"));
  chmodSync(join(upper, "dir"), 0o1777);
  setXattr(join(upper, "cut"), "user.lost", Buffer.from("x"));
  mknodAt(AT.FDCWD, join(upper, "blk"), S.IFBLK | 0o600, { major: 7, minor: 300 });
  symlinkSync("t", join(upper, "sl"));
  const entries = await entriesOf(
    gather(archive.diffLayer({ lowerDir: lower, upperDir: upper, sourceDateEpoch: 5 })),
  );
  assert.deepEqual(
    entries.map(({ header }) => [header.name, header.type, header.linkname, header.mtimeNs]),
    [
      ["blk", "block", "", 5_000_000_000n],
      ["cut", "file", "", 5_000_000_000n],
      ["dir/", "dir", "", 5_000_000_000n],
      ["dir/sub/", "dir", "", 5_000_000_000n],
      ["dir/sub/f", "file", "", 5_000_000_000n],
      [".wh.gone", "file", "", 0n],
      ["h3", "file", "", 5_000_000_000n],
      ["dir/h2", "link", "h3", 5_000_000_000n],
      ["h1", "link", "h3", 5_000_000_000n],
      ["sl", "symlink", "t", 5_000_000_000n],
    ],
  );
});

test("compression is deterministic, ordinary and bounded", async () => {
  const data = Buffer.alloc(3_500_000);
  for (let i = 0; i < data.length; i++) data[i] = (i * i) >> 7;
  for (const level of [0, 1, 6, 9]) {
    const a = await collect(archive.compress(stream(data, 777_777), { kind: "gzip", level }));
    const b = await collect(archive.compress(stream(data, 65_536), { kind: "gzip", level }));
    assert.ok(a.equals(b));
    assert.ok(gunzipSync(a).equals(data));
  }
  assert.ok(gunzipSync(await collect(archive.compress([], { kind: "gzip" }))).equals(Buffer.alloc(0)));
  const z = await collect(archive.compress(stream(data, 777_777), { kind: "zstd", level: 1 }));
  assert.ok(zstdDecompressSync(z).equals(data));
  for (const packed of [z, gzipSync(data), data, zstdCompressSync(data)]) {
    assert.ok((await collect(archive.decompress(stream(packed, 5000)))).equals(data));
  }
  for (const program of ["bzip2", "xz"]) {
    const packed = spawnSync(program, ["-c"], { input: data, maxBuffer: 1 << 26 }).stdout;
    assert.equal(archive.detectCompression(packed), program);
    assert.ok((await collect(archive.decompress(stream(packed, 50_000)))).equals(data));
    await assert.rejects(collect(archive.decompress(stream(packed.subarray(0, 2000)))), {
      code: "invalid_argument",
    });
  }
  const bomb = gzipSync(Buffer.alloc(1 << 24));
  await assert.rejects(collect(archive.decompress(stream(bomb), { limits: { maxTotalBytes: 1 << 20 } })), {
    code: "resource_exhausted",
  });
  await assert.rejects(collect(archive.decompress(stream(gzipSync(data).subarray(0, 5000)))), {
    code: "invalid_argument",
  });
  assert.throws(() => archive.compress([], { kind: "gzip", level: 12 }), { code: "invalid_argument" });
});

test("eStargz is an ordinary layer with a table of contents", async () => {
  const big = "x".repeat((4 << 20) + 10);
  const tar = await tarOf(
    { name: "d/", type: "dir", mtimeNs: 1_600_000_000_000_000_000n },
    { name: "d/a", content: "hello", xattrs: new Map([["user.x", Buffer.from("<&")]]), format: "pax" },
    { name: "empty" },
    { name: "big", content: big },
    { name: "l", type: "symlink", linkname: "d/a" },
  );
  const results: archive.EstargzResult[] = [];
  const make = (step: number): Promise<Buffer> =>
    collect(
      archive.compress(stream(tar, step), { kind: "estargz", onEstargz: (result) => results.push(result) }),
    );
  const blob = await make(777);
  assert.ok((await make(65_536)).equals(blob));
  const whole = gunzipSync(blob);
  assert.ok(whole.subarray(0, tar.length).equals(tar));
  assert.equal(results[0]?.diffId, `sha256:${createHash("sha256").update(whole).digest("hex")}`);
  assert.equal(results[0]?.tarBytes, whole.length);
  const tocOffset = Number.parseInt(
    blob.toString("latin1", blob.length - 51 + 16, blob.length - 51 + 32),
    16,
  );
  const [toc] = await entriesOf(gunzipSync(blob.subarray(tocOffset, blob.length - 51)));
  assert.equal(toc?.header.name, "stargz.index.json");
  assert.equal(results[0]?.tocDigest, `sha256:${createHash("sha256").update(toc.content).digest("hex")}`);
  const { entries } = JSON.parse(toc.content.toString()) as { entries: Record<string, unknown>[] };
  assert.deepEqual(
    entries.map((entry) => [entry.name, entry.type, entry.chunkOffset]),
    [
      ["d/", "dir", undefined],
      ["d/a", "reg", undefined],
      ["empty", "reg", undefined],
      ["big", "reg", undefined],
      ["big", "chunk", 4 << 20],
      ["l", "symlink", undefined],
    ],
  );
  const piece = gunzipSync(blob.subarray(Number(entries[1]?.offset)));
  assert.equal(piece.toString("latin1", 0, 5), "hello");
  assert.equal(entries[1]?.chunkDigest, `sha256:${createHash("sha256").update("hello").digest("hex")}`);
  await assert.rejects(
    collect(archive.compress(stream(whole.subarray(tar.length)), { kind: "estargz" })),
    /TOC/,
  );
});

test("jobs run on threads, report and can be cancelled", async () => {
  await using pool = new archive.LayerPool(2);
  const tree = join(dir, "t");
  mkdirSync(tree);
  for (let i = 0; i < 40; i++) writeFileSync(join(tree, `f${i}`), Buffer.alloc(200_000, i));
  const { signal } = new AbortController();
  const output = join(dir, "blob");
  const blob = await pool.run(
    { kind: "diff", opts: { upperDir: tree }, output, compression: { kind: "gzip", level: 1 } },
    { signal },
  );
  const bytes = readFileSync(output);
  assert.equal(blob.sizeBytes, bytes.length);
  assert.equal(blob.digest, `sha256:${createHash("sha256").update(bytes).digest("hex")}`);
  const tar = gunzipSync(bytes);
  assert.equal(blob.diffId, `sha256:${createHash("sha256").update(tar).digest("hex")}`);
  const converted = await pool.run(
    { kind: "convert", file: output, output: join(dir, "z"), compression: { kind: "zstd" } },
    { signal },
  );
  assert.equal(converted.diffId, blob.diffId);
  assert.deepEqual(await pool.run({ kind: "hash", file: join(dir, "z"), decompress: true }, { signal }), {
    digest: blob.diffId,
    sizeBytes: tar.length,
  });
  mkdirSync(join(dir, "to"));
  const opts = { whiteouts: "remove" } as const;
  const applied = await pool.run(
    { kind: "apply", file: output, dir: join(dir, "to"), opts, diffId: blob.diffId },
    { signal },
  );
  assert.equal(applied.inodes, 40);
  const wrong = {
    kind: "apply",
    file: output,
    dir: join(dir, "to"),
    opts,
    diffId: `sha256:${"0".repeat(64)}`,
  } as const;
  await assert.rejects(pool.run(wrong, { signal }), { code: "data_loss" });
  const controller = new AbortController();
  const slow = pool.run(
    { kind: "convert", file: output, output: join(dir, "c"), compression: { kind: "gzip", level: 9 } },
    { signal: controller.signal, onProgress: () => controller.abort(new Error("enough")) },
  );
  await assert.rejects(slow, /enough/);
  assert.equal(existsSync(join(dir, "c")), false);
});

test("timestamps are rewritten", async () => {
  const layer = await tarOf(
    { name: "old", mtimeNs: 1_000_000_000n, content: "1" },
    { name: "new", mtimeNs: 9_500_000_001n, atimeNs: 10_000_000_000n, content: "2", format: "pax" },
  );
  const entries = await entriesOf(await collect(archive.rewriteTimestamps(stream(layer), 5)));
  assert.deepEqual(
    entries.map(({ header, content }) => [header.name, header.mtimeNs, header.atimeNs, String(content)]),
    [
      ["old", 1_000_000_000n, undefined, "1"],
      ["new", 5_000_000_000n, 5_000_000_000n, "2"],
    ],
  );
});

test("one owner for all entries", { skip: !root }, async () => {
  const bytes = await tarOf({ name: "new/file", content: "x", uid: 7, gid: 8 });
  await archive.applyLayer(stream(bytes), dir, { whiteouts: "keep", owner: { uid: 3, gid: 4 } });
  const owners = ["new", "new/file"].map((name) => {
    const { uid, gid } = lstatSync(join(dir, name));
    return [uid, gid];
  });
  assert.deepEqual(owners, [
    [0, 0],
    [3, 4],
  ]);
});
