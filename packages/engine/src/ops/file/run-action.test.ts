import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { PlainCopy } from "./file-action.ts";
import { runAction } from "./run-action.ts";

let base: string;
let root: string;
let source: string;
let canary: string;
let before: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "kiln-file-op-"));
  [root, source, canary] = ["root", "source", "canary"].map((name) => join(base, name)) as [
    string,
    string,
    string,
  ];
  for (const dir of [root, source, canary]) mkdirSync(dir);
  mkdirSync(join(canary, "dir"));
  writeFileSync(join(canary, "file"), "canary");
  writeFileSync(join(canary, "dir/file"), "canary");
  mkdirSync(join(root, "dir/below"), { recursive: true });
  writeFileSync(join(root, "dir/file"), "inside");
  // Links out of the tree, by every way; inside a tree they lead to places of the tree.
  for (const [name, target] of [
    ["absolute", canary],
    ["relative", "../canary"],
    ["chained", "relative"],
    ["up", "../../../../../../../../"],
    ["dangling", join(canary, "new")],
    ["to-file", join(canary, "file")],
  ] as const) {
    symlinkSync(target, join(root, name));
    symlinkSync(target, join(source, name));
  }
  before = look(canary);
});
afterEach(() => {
  assert.equal(look(canary), before, "something outside the tree was changed");
  rmSync(base, { recursive: true, force: true });
});

/** Everything that can be seen of a tree. */
function look(dir: string, depth = 99): string {
  const script = `find . -maxdepth ${depth} -printf '%p %y %m %U:%G %s %l %T@\\n' | sort; find . -maxdepth ${depth} -type f | sort | xargs -r cat`;
  return execFileSync("sh", ["-c", script], { cwd: dir, encoding: "utf8" });
}

/** Done or refused: nothing outside may change. */
async function attempt(action: Parameters<typeof runAction>[0]): Promise<Error | undefined> {
  try {
    await runAction(action);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

const LINKS = ["absolute", "relative", "chained", "up", "dangling", "to-file"];
const UP = [
  "..",
  "../..",
  "../canary",
  "a/../../canary",
  "dir/../../canary",
  "/../canary",
  "../../../../../../etc",
  "dir/below/../../../canary/file",
  "..\\canary",
  "./../canary/dir/",
];

describe("file actions stay inside their trees", () => {
  it("rm: what leads up is the tree's own; a link goes, not what it points at", async () => {
    const rm = (path: string, allowWildcard = false) =>
      attempt({ kind: "rm", root, path, allowNotFound: true, allowWildcard });
    for (const path of [...UP, "/", ".", "", "dir/.."]) {
      await rm(path);
      await rm(path, true);
      assert.ok(existsSync(canary) && existsSync(root), path);
    }
    for (const link of LINKS) await rm(`${link}/file`);
    for (const link of LINKS) await rm(`${link}/*`, true);
    for (const link of LINKS) assert.ok(lstatSync(join(root, link)).isSymbolicLink(), link);
    for (const link of LINKS) {
      assert.equal(await rm(link), undefined);
      assert.equal(lstatSync(join(root, link), { throwIfNoEntry: false }), undefined, link);
    }
    assert.equal(await rm("d*", true), undefined);
    assert.ok(!existsSync(join(root, "dir")));
  });

  it("mkfile, mkdir, symlink: links lead to places of the tree", async () => {
    for (const path of [...UP, ...LINKS, ...LINKS.map((link) => `${link}/new/deep`)]) {
      const common = { root, owner: undefined, timeNs: undefined };
      await attempt({ kind: "mkfile", path: `${path}/made`, mode: 0o644, data: Buffer.from("x"), ...common });
      await attempt({ kind: "mkfile", path, mode: 0o777, data: Buffer.from("x"), ...common });
      await attempt({ kind: "mkdir", path: `${path}/d1/d2`, mode: 0o777, makeParents: true, ...common });
      await attempt({ kind: "mkdir", path, mode: 0o777, makeParents: false, ...common });
      await attempt({ kind: "symlink", oldpath: "/etc/passwd", newpath: `${path}/link`, ...common });
    }
  });

  const copy = (src: string, dest: string, more: Partial<PlainCopy> = {}): PlainCopy => ({
    kind: "copy",
    source,
    root,
    src,
    dest,
    owner: undefined,
    mode: -1,
    modeStr: "",
    followSymlink: true,
    dirCopyContents: true,
    attemptUnpack: false,
    createDestPath: true,
    allowWildcard: true,
    allowEmptyWildcard: true,
    includePatterns: [],
    excludePatterns: [],
    alwaysReplace: false,
    timeNs: undefined,
    ...more,
  });

  it("copy from: no path and no link shows what is outside", async () => {
    for (const src of [
      ...UP,
      ...LINKS,
      ...LINKS.flatMap((link) => [`${link}/file`, `${link}/*`, `${link}/..`]),
    ]) {
      await attempt(copy(src, "/got/"));
      await attempt(copy(src, "/got-file"));
    }
    assert.doesNotMatch(
      execFileSync("sh", ["-c", "find . -type f -exec cat {} +"], { cwd: root, encoding: "utf8" }),
      /canary/,
    );
  });

  it("patterns below what is no directory match nothing, and don't look through links", async () => {
    writeFileSync(join(source, "plain"), "x");
    assert.equal(await attempt(copy("plain/*", "/", { allowEmptyWildcard: true })), undefined);
    const missing = await attempt(copy("none/*", "/", { allowEmptyWildcard: true }));
    assert.match(String(missing), /ENOENT.*lstat/);
    await attempt(copy("absolute/*", "/", { allowEmptyWildcard: true, followSymlink: false }));
    assert.equal(existsSync(join(root, "file")), false);
  });

  it("copy to: links and entries in the way are replaced or resolved in the tree", async () => {
    writeFileSync(join(source, "plain"), "plain");
    mkdirSync(join(source, "tree/dir"), { recursive: true });
    writeFileSync(join(source, "tree/file"), "new");
    writeFileSync(join(source, "tree/dir/file"), "new");
    for (const dest of [
      ...UP,
      ...LINKS,
      ...LINKS.flatMap((link) => [`${link}/`, `${link}/x`, `${link}/../x`]),
    ]) {
      for (const more of [
        {},
        { dirCopyContents: false },
        { alwaysReplace: true },
        { mode: 0o777, owner: { uid: 7, gid: 7 } },
      ]) {
        await attempt(copy("plain", dest, more));
        await attempt(copy("tree", dest, more));
      }
    }
    // A link of the name that the copied entry gets.
    mkdirSync(join(root, "to"));
    for (const name of ["plain", "tree", "dir", "file"])
      symlinkSync(join(canary, name === "plain" ? "file" : "dir"), join(root, "to", name));
    await attempt(copy("plain", "/to/"));
    await attempt(copy("tree", "/to/", { dirCopyContents: false }));
    await attempt(copy("tree", "/to"));
    assert.ok(!readFileSync(join(canary, "file"), "utf8").includes("plain"));
  });

  it("unpacking: members that lead out stay in the tree or are refused", async () => {
    const parts = join(base, "parts");
    mkdirSync(parts);
    writeFileSync(join(parts, "evil"), "evil");
    symlinkSync(canary, join(parts, "link"));
    const names = [
      "../canary/evil",
      "/../canary/evil",
      "absolute/evil",
      "relative/evil",
      "chained/evil",
      "link/evil",
      "to-file",
      "dangling",
    ];
    const archive = join(source, "archive.tar");
    execFileSync("tar", ["-C", parts, "-cf", archive, "link"]);
    for (const name of names) {
      execFileSync("tar", [
        "-C",
        parts,
        "-P",
        "-rf",
        archive,
        `--transform=flags=r;s,^evil$,${name},`,
        "evil",
      ]);
    }
    await attempt(copy("archive.tar", "/", { attemptUnpack: true, allowWildcard: false }));
    await attempt(copy("archive.tar", "/up/", { attemptUnpack: true, allowWildcard: false }));
    rmSync(parts, { recursive: true });
  });
});
