import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
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
import { afterEach, beforeEach, describe, test } from "node:test";
import { isBuildError } from "@kiln/base";
import {
  type Change,
  compareWirePaths,
  DiskTree,
  decodeStat,
  followLinks,
  GoMode,
  goModeFromPosix,
  joinSources,
  type Packet,
  type PacketStream,
  packetCodec,
  posixFromGoMode,
  type ReceiveOptions,
  receiveTree,
  type Stat,
  sendTree,
  sourceOfDir,
  sourceOfTree,
  type TreeSource,
  TreeValidator,
  treeOfFiles,
  walkFiltered,
} from "./index.ts";

let dir: string;
let src: string;
let dest: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "kiln-fsutil-"));
  src = join(dir, "src");
  dest = join(dir, "dest");
  mkdirSync(src);
  mkdirSync(dest);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Two ends of a call; every packet goes through its bytes. */
function pair(): [PacketStream, PacketStream & { end(): void }] {
  const make = () => {
    const queue: (Uint8Array | undefined)[] = [];
    let wake: (() => void) | undefined;
    return {
      push: (b: Uint8Array | undefined) => {
        queue.push(b);
        wake?.();
      },
      async take(): Promise<Packet | undefined> {
        while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
        const b = queue.shift();
        return b === undefined ? undefined : packetCodec.decode(b);
      },
    };
  };
  const a = make();
  const b = make();
  const copy = (p: Packet) => Uint8Array.from(packetCodec.encode(p));
  return [
    { receive: () => a.take(), send: async (p) => b.push(copy(p)) },
    { receive: () => b.take(), send: async (p) => a.push(copy(p)), end: () => a.push(undefined) },
  ];
}

async function transfer(source: TreeSource, opts: ReceiveOptions = {}): Promise<Change[]> {
  const [s, r] = pair();
  const changes: Change[] = [];
  await Promise.all([
    sendTree(s, source),
    receiveTree(r, dest, {
      onChange: (c) => changes.push(c),
      hasher: () => {
        const h = createHash("sha256");
        return { update: (d) => void h.update(d), digest: () => h.digest("hex") };
      },
      ...opts,
    }),
  ]);
  return changes;
}

/** Everything that can be seen of a tree. */
function look(root: string): string[] {
  return execFileSync(
    "sh",
    ["-c", "find . -printf '%p %y %m %U:%G %s %l %T@\\n' | sort; find . -type f | sort | xargs -r sha256sum"],
    {
      cwd: root,
      encoding: "utf8",
    },
  )
    .split("\n")
    .filter((l) => !l.startsWith(". "));
}

function write(path: string, text = path, base = src): void {
  mkdirSync(join(base, path, ".."), { recursive: true });
  writeFileSync(join(base, path), text);
}

describe("a transfer", () => {
  test("keeps types, modes, times, links, contents", async () => {
    write("a/b/c.txt", "hello");
    write("a-b", "x".repeat(300_000));
    write("a.b", "");
    write("ünï/\u{1F600}");
    chmodSync(join(src, "a-b"), 0o4751);
    chmodSync(join(src, "a"), 0o1777);
    symlinkSync("../nowhere", join(src, "a/link"));
    linkSync(join(src, "a-b"), join(src, "z"));
    execFileSync("mkfifo", [join(src, "fifo")]);
    execFileSync("sh", ["-c", "printf x > $(printf 'bad\\377name')"], { cwd: src });
    utimesSync(join(src, "a/b"), 5.5, 7.25);
    const changes = await transfer(sourceOfDir(src));
    assert.deepEqual(look(dest), look(src));
    assert.equal(lstatSync(join(dest, "z")).ino, lstatSync(join(dest, "a-b")).ino);
    const c = changes.find((x) => x.path === "a/b/c.txt");
    assert.equal(c?.digest, createHash("sha256").update("hello").digest("hex"));
    assert.deepEqual(await transfer(sourceOfDir(src)), []);
  });
  test("sends only what changed, removes what vanished", async () => {
    write("d/keep", "1");
    write("d/change", "1");
    write("d/gone", "1");
    write("was-dir/x", "1");
    write("was-file", "1");
    await transfer(sourceOfDir(src));
    rmSync(join(src, "d/gone"));
    rmSync(join(src, "was-dir"), { recursive: true });
    rmSync(join(src, "was-file"));
    write("was-dir", "now a file");
    write("was-file/y", "now a dir");
    write("d/change", "22");
    write("d/new", "3");
    const changes = await transfer(sourceOfDir(src));
    assert.deepEqual(look(dest), look(src));
    assert.deepEqual(changes.map((c) => `${c.kind} ${c.path}`).sort(), [
      "add d/new",
      "add was-file/y",
      "delete d/gone",
      "modify d/change",
      "modify was-dir",
      "modify was-file",
    ]);
    assert.equal((await transfer(sourceOfDir(src), { differ: "none" })).length, 7);
  });
  test("merge keeps what is there", async () => {
    write("new", "1");
    write("old", "2", dest);
    await transfer(sourceOfDir(src), { merge: true });
    assert.deepEqual(readdirSync(dest).sort(), ["new", "old"]);
  });
  test("many files", async () => {
    for (let i = 0; i < 700; i++) write(`f${i % 10}/x${i}`, String(i));
    await transfer(sourceOfDir(src));
    assert.deepEqual(look(dest), look(src));
  });
  test("metadata only", async () => {
    write("a/b/c", "1");
    write("a/b/d", "2");
    write("e", "3");
    await transfer(sourceOfDir(src), { metadataOnly: (p) => p === "a/b/d" });
    assert.ok(
      existsSync(join(dest, "a/b/d")) && !existsSync(join(dest, "a/b/c")) && !existsSync(join(dest, "e")),
    );
    const bytes = readFileSync(join(dest, ".fsutil-metadata"));
    const paths: string[] = [];
    for (let at = 0; at < bytes.length; ) {
      const n = bytes.readUInt32LE(at);
      paths.push(decodeStat(bytes.subarray(at + 4, at + 4 + n)).path);
      at += 4 + n;
    }
    assert.deepEqual(paths, ["a", "a/b", "a/b/c", "a/b/d", "e"]);
  });
  test("a hard link whose first name is filtered out becomes a file", async () => {
    write("a", "data");
    linkSync(join(src, "a"), join(src, "b"));
    linkSync(join(src, "a"), join(src, "c"));
    await transfer(sourceOfDir(src, { exclude: ["a"] }));
    assert.equal(readFileSync(join(dest, "c"), "utf8"), "data");
    assert.equal(lstatSync(join(dest, "b")).ino, lstatSync(join(dest, "c")).ino);
    assert.deepEqual(await transfer(sourceOfDir(src, { exclude: ["a"] })), []);
  });
  test("whole files: what was there stays until the new one is complete, and nothing is left of others", async () => {
    write("a");
    write("b", "new b");
    linkSync(join(src, "b"), join(src, "c"));
    write("d/e", "new e");
    write("b", "old b", dest);
    write("d/e/x", "a directory in the way", dest);
    const failing = sourceOfDir(src);
    const broken: TreeSource = {
      stats: () => failing.stats(),
      open: (path) => {
        if (path === "b") throw new Error("can't be read");
        return failing.open(path);
      },
    };
    const [receiving, sending] = pair();
    const sent = sendTree(sending, broken).finally(() => sending.end());
    const received = receiveTree(receiving, dest, { merge: true, whole: true });
    await Promise.all([assert.rejects(sent, /can't be read/), assert.rejects(received)]);
    assert.equal(readFileSync(join(dest, "b"), "utf8"), "old b");
    assert.ok(!look(dest).some((line) => /\.tmp\.|\/c /.test(line)), look(dest).join("\n"));
    await transfer(sourceOfDir(src), { merge: true, whole: true });
    assert.deepEqual(look(dest), look(src));
  });

  test("files that are in memory only leave nothing in the file system", async () => {
    const before = process.env.TMPDIR;
    process.env.TMPDIR = src;
    try {
      const files = new Map([
        ["b", new Uint8Array(0)],
        ["Dockerfile", Buffer.from("FROM scratch\n")],
      ]);
      const tree = treeOfFiles(files);
      closeSync(tree.open("Dockerfile"));
      assert.deepEqual(readdirSync(src), [], "also while the file is read");
      await transfer(sourceOfTree(tree, { include: ["Dockerfile"] }));
      assert.deepEqual(readdirSync(dest), ["Dockerfile"]);
      assert.equal(readFileSync(join(dest, "Dockerfile"), "utf8"), "FROM scratch\n");
      assert.throws(() => tree.open("c"), /no such file/);
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
  });

  test("several sources under one root", async () => {
    write("x", "1");
    symlinkSync("/x", join(src, "abs"));
    const stat = (path: string): Stat => ({
      path,
      mode: GoMode.DIR + 0o755,
      uid: 0,
      gid: 0,
      size: 0n,
      modTime: 1n,
      linkname: "",
      devmajor: 0n,
      devminor: 0n,
      xattrs: {},
    });
    await transfer(
      joinSources([
        { stat: stat("q"), source: sourceOfDir(src) },
        { stat: stat("p"), source: sourceOfDir(src) },
      ]),
    );
    assert.deepEqual(readdirSync(dest), ["p", "q"]);
    assert.equal(readlinkSync(join(dest, "q/abs")), "/q/x");
    assert.throws(() => joinSources([{ stat: stat("../p"), source: sourceOfDir(src) }]));
  });
});

describe("filters", () => {
  const paths = (opts: Parameters<typeof walkFiltered>[1]) =>
    [...walkFiltered(new DiskTree(src), opts)].map((s) => s.path);
  test("order, include, exclude, parents", () => {
    for (const p of ["a/b/c", "a/b.x", "a/bc", "foo/bar", "foo.x", "z/y/x"]) write(p);
    assert.deepEqual(paths({}), [
      "a",
      "a/b",
      "a/b/c",
      "a/b.x",
      "a/bc",
      "foo",
      "foo/bar",
      "foo.x",
      "z",
      "z/y",
      "z/y/x",
    ]);
    assert.deepEqual(paths({ include: ["a/b/c"] }), ["a", "a/b", "a/b/c"]);
    assert.deepEqual(paths({ include: ["**/*.x"] }), ["a", "a/b.x", "foo.x"]);
    assert.deepEqual(paths({ exclude: ["a", "!a/b/c"] }), [
      "a",
      "a/b",
      "a/b/c",
      "foo",
      "foo/bar",
      "foo.x",
      "z",
      "z/y",
      "z/y/x",
    ]);
    assert.deepEqual(paths({ include: ["a"], exclude: ["a/b*", "!a/bc"] }), ["a", "a/bc"]);
    assert.deepEqual(paths({ exclude: ["*"] }), []);
    assert.deepEqual(paths({ map: (p) => (p === "a" ? "skipDir" : p === "foo" ? "exclude" : "keep") }), [
      "foo/bar",
      "foo.x",
      "z",
      "z/y",
      "z/y/x",
    ]);
  });
  test("follow paths", () => {
    write("dir/real/file");
    write("other/t1");
    symlinkSync("real", join(src, "dir/l1"));
    symlinkSync("dir/l1/file", join(src, "l2"));
    symlinkSync("/other", join(src, "dir/abs"));
    symlinkSync("loop", join(src, "loop"));
    symlinkSync("../../../../etc", join(src, "out"));
    const tree = new DiskTree(src);
    assert.deepEqual(followLinks(tree, ["l2"]), ["dir/l1", "dir/real/file", "l2"]);
    assert.deepEqual(followLinks(tree, ["dir/abs/t1"]), ["dir/abs", "other/t1"]);
    assert.deepEqual(followLinks(tree, ["l*"]), ["dir/l1", "dir/real/file", "l*", "loop"]);
    assert.deepEqual(followLinks(tree, ["loop/x"]), ["loop"]);
    assert.deepEqual(followLinks(tree, ["out/passwd"]), ["etc/passwd", "out"]);
    assert.equal(followLinks(tree, ["."]), undefined);
    assert.deepEqual(paths({ followPaths: ["l2"] }), ["dir", "dir/l1", "dir/real", "dir/real/file", "l2"]);
  });
});

describe("a hostile sender", () => {
  const stat = (path: string, over: Partial<Stat> = {}): Packet => ({
    type: "stat",
    stat: {
      path,
      mode: 0o644,
      uid: 0,
      gid: 0,
      size: 1n,
      modTime: 1n,
      linkname: "",
      devmajor: 0n,
      devminor: 0n,
      xattrs: {},
      ...over,
    },
  });
  const dirOf = (path: string) => stat(path, { mode: GoMode.DIR + 0o755 });
  const play = async (packets: Packet[]): Promise<unknown> => {
    const [s, r] = pair();
    const received = receiveTree(r, dest).then(
      () => undefined,
      (e: unknown) => e,
    );
    for (const p of packets) await s.send(p);
    r.end();
    return received;
  };
  for (const [name, packets] of Object.entries({
    "absolute path": [stat("/etc/x")],
    "dot dot": [stat("../x")],
    "dot dot inside": [dirOf("a"), stat("a/../../x")],
    unclean: [stat("a//b")],
    "no parent": [stat("a/b")],
    "parent is a link": [stat("a", { mode: GoMode.SYMLINK + 0o777, linkname: "/" }), stat("a/b")],
    "out of order": [stat("b"), stat("a")],
    twice: [stat("a"), stat("a")],
    "link to unknown": [stat("a", { linkname: "/etc/passwd" })],
    "data for nothing": [{ type: "data", id: 3, data: new Uint8Array(1) } as Packet],
    "early end": [{ type: "fin" } as Packet],
    socket: [stat("a", { mode: GoMode.IRREGULAR + 0o777 })],
    nul: [stat("a\0b")],
  })) {
    test(name, async () => {
      const error = await play(packets);
      assert.ok(isBuildError(error, "invalid_argument"), String(error));
    });
  }
  test("links planted in the destination are not followed", async () => {
    const outside = join(dir, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "f"), "safe");
    symlinkSync(outside, join(dest, "d"));
    symlinkSync(join(outside, "f"), join(dest, "f"));
    symlinkSync(join(outside, "f"), join(dest, ".fsutil-metadata"));
    write("d/f", "evil");
    write("f", "evil");
    await transfer(sourceOfDir(src), { merge: true });
    await transfer(sourceOfDir(src), { metadataOnly: () => false });
    assert.equal(readFileSync(join(outside, "f"), "utf8"), "safe");
    assert.deepEqual(readdirSync(outside), ["f"]);
  });
  test("a request for what isn't there", async () => {
    const [s, r] = pair();
    const sent = sendTree(s, sourceOfDir(src)).then(
      () => undefined,
      (e: unknown) => e,
    );
    await r.send({ type: "request", id: 7 });
    assert.ok(isBuildError(await sent, "invalid_argument"));
  });
});

test("modes and order", () => {
  for (const mode of [0o100644, 0o104755, 0o041777, 0o120777, 0o020600, 0o060600, 0o010600]) {
    assert.equal(posixFromGoMode(goModeFromPosix(mode)), mode);
  }
  const sorted = ["a", "a/b", "a/b/c", "a b", "a-b", "a.b", "b"];
  assert.deepEqual([...sorted].reverse().sort(compareWirePaths), sorted);
  const v = new TreeValidator();
  const check = (path: string, mode = 0o644) =>
    v.check({
      path,
      mode,
      uid: 0,
      gid: 0,
      size: 0n,
      modTime: 0n,
      linkname: "",
      devmajor: 0n,
      devminor: 0n,
      xattrs: {},
    });
  check("foo", GoMode.DIR);
  check("foo/a", GoMode.DIR);
  check("foo/a/x");
  check("foo/b");
  check("foo-bar");
  check("foo.x", GoMode.DIR);
  check("foo.x/y");
});

test("removing and walking much lets timers run", async () => {
  for (let i = 0; i < 30; i++) for (let k = 0; k < 100; k++) write(`old/d${i}/f${k}`, "", dest);
  for (let i = 0; i < 30; i++) for (let k = 0; k < 100; k++) write(`d${i}/f${k}`, "");
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 1);
  await transfer(sourceOfDir(src, { include: ["**/nothing"] }));
  clearInterval(timer);
  assert.deepEqual(readdirSync(dest), []);
  assert.ok(longest < 500, `the loop stood still for ${longest} ms`);
});
