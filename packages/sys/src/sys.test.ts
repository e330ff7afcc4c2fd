import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import * as sys from "./index.ts";

const root = process.geteuid?.() === 0;
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "kiln-sys"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test("names that are not UTF-8 survive", () => {
  const bytes = Buffer.from([0x61, 0xff, 0xc3, 0xa9, 0xed, 0xb2, 0x80, 0x62]);
  const text = sys.decodePath(bytes);
  assert.deepEqual(sys.encodePath(text), bytes);
  sys.mkdirAt(sys.AT.FDCWD, join(dir, sys.decodePath(Buffer.from([0xff]))), 0o700);
  assert.deepEqual(readdirSync(dir, { encoding: "buffer" }), [Buffer.from([0xff])]);
  assert.equal(sys.comparePaths("\u{10000}", "\uffff") > 0, true);
  assert.throws(() => sys.mkdirAt(sys.AT.FDCWD, `${dir}/a\0b`, 0o700), { code: "EINVAL" });
});

test("stat, times, links and attributes", () => {
  const file = join(dir, "f");
  writeFileSync(file, "hello");
  sys.utimesAt(sys.AT.FDCWD, file, -5n, -1_500_000_001n);
  const stat = sys.lstat(file);
  assert.equal(stat.mtimeNs, -1_500_000_001n);
  assert.equal(stat.size, 5);
  assert.equal(sys.isRegular(stat), true);
  sys.symlinkAt("f", sys.AT.FDCWD, join(dir, "l"));
  assert.equal(sys.readlinkAt(sys.AT.FDCWD, join(dir, "l")), "f");
  assert.equal(sys.tryLstat(join(dir, "nothing")), undefined);
  assert.throws(() => sys.lstat(join(dir, "nothing")), { code: "ENOENT" });
  assert.equal(sys.getXattr(file, "user.none"), undefined);
  sys.setXattr(file, "user.bin", Buffer.from([0xff, 0, 0xfe]));
  assert.deepEqual(sys.getXattr(file, "user.bin"), Buffer.from([0xff, 0, 0xfe]));
  assert.deepEqual(sys.listXattrs(file), ["user.bin"]);
  sys.removeXattr(file, "user.bin");
  assert.deepEqual(sys.listXattrs(file), []);
  assert.throws(() => sys.chownAt(sys.AT.FDCWD, file, -1, 0), { code: "EINVAL" });
});

test("paths stay inside their root", () => {
  const inside = join(dir, "root");
  mkdirSync(join(inside, "etc"), { recursive: true });
  writeFileSync(join(dir, "secret"), "outside");
  writeFileSync(join(inside, "etc/x"), "inside");
  symlinkSync("/etc", join(inside, "abs"));
  symlinkSync("../../../..", join(inside, "up"));
  symlinkSync("loop", join(inside, "loop"));
  symlinkSync("/new/place", join(inside, "dangling"));
  using fs = new sys.RootedFs(inside);
  assert.equal(fs.resolve("abs/x"), "/etc/x");
  assert.equal(fs.resolve("up/secret/../etc/x".replace("secret/../", "")), "/etc/x");
  assert.equal(fs.stat("up/secret"), undefined);
  assert.throws(() => fs.resolve("loop"), { code: "ELOOP" });
  fs.mkdirAll("dangling/a");
  assert.equal(existsSync(join(inside, "new/place/a")), true);
  assert.equal(sys.rootPath(inside, "abs/../../../etc/none"), join(inside, "etc/none"));
  assert.equal(sys.rootPath(inside, "up"), inside);
  assert.throws(() => sys.rootPath(inside, "loop/x"), { code: "ELOOP" });
  const fd = fs.open("abs/x", sys.O.RDONLY);
  assert.equal(readFileSync(fd, "utf8"), "inside");
  closeSync(fd);
  fs.removeAll("up");
  assert.equal(readFileSync(join(dir, "secret"), "utf8"), "outside");
  assert.deepEqual(fs.readdir("abs"), ["x"]);
  assert.equal(sys.cleanInRoot("../../a/./b/"), "/a/b");
});

test("mount options", () => {
  assert.deepEqual(sys.parseMountOptions(["rbind", "ro", "rw", "rprivate", "size=1m"]), {
    flags: sys.MS.BIND | sys.MS.REC,
    propagation: sys.MS.PRIVATE | sys.MS.REC,
    data: ["size=1m"],
  });
  assert.deepEqual(
    sys.readonlyMounts([
      {
        type: "overlay",
        source: "overlay",
        options: ["volatile", "workdir=w", "upperdir=u", "lowerdir=a:b"],
      },
    ]),
    [{ type: "overlay", source: "overlay", options: ["lowerdir=u:a:b"] }],
  );
});

test("overlays of 200 layers, bind mounts, read-only", { skip: !root }, () => {
  const lowers: string[] = [];
  for (let i = 0; i < 200; i++) {
    const lower = join(dir, `a-rather-long-name-for-a-lower-directory-${i}`);
    mkdirSync(lower);
    writeFileSync(join(lower, `f${i}`), String(i));
    lowers.push(lower);
  }
  for (const name of ["u", "w"]) mkdirSync(join(dir, name));
  const overlay: sys.Mount = {
    type: "overlay",
    source: "overlay",
    options: [`lowerdir=${lowers.join(":")}`, `upperdir=${dir}/u`, `workdir=${dir}/w`],
  };
  {
    using mounted = sys.localMount([overlay], { tmpDir: dir });
    assert.equal(readdirSync(mounted.path).length, 200);
    sys.unlinkAt(sys.AT.FDCWD, join(mounted.path, "f7"));
    const whiteout = sys.lstat(join(dir, "u/f7"));
    assert.equal(whiteout.mode & sys.S.IFMT, sys.S.IFCHR);
  }
  {
    using mounted = sys.localMount(sys.readonlyMounts([overlay]), { tmpDir: dir });
    assert.equal(readdirSync(mounted.path).length, 199);
    assert.throws(() => writeFileSync(join(mounted.path, "x"), ""), { code: "EROFS" });
  }
  {
    using mounted = sys.localMount([{ type: "bind", source: join(dir, "u"), options: ["rbind", "ro"] }]);
    assert.notEqual(mounted.path, join(dir, "u"));
    assert.throws(() => writeFileSync(join(mounted.path, "x"), ""), { code: "EROFS" });
  }
  assert.equal(sys.localMount([{ type: "bind", source: dir, options: ["rbind", "rw"] }]).path, dir);
  assert.equal(
    sys.mountPoints().some((path) => path.startsWith(dir)),
    false,
  );
});

test("a lock file has one holder", () => {
  const path = join(dir, "lock");
  {
    using lock = sys.tryLockFile(path);
    assert.ok(lock);
    assert.equal(sys.tryLockFile(path), undefined);
  }
  using again = sys.tryLockFile(path);
  assert.ok(again);
});
