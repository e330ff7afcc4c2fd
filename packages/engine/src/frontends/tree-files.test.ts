import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { errorMessage } from "@kiln/base";
import { readContainerDir, readContainerFile, statContainerFile } from "./container-files.ts";
import { readTreeDir, readTreeFile, statTreeFile } from "./tree-files.ts";

const folder = mkdtempSync(join(tmpdir(), "kiln-tree-files-"));
const root = join(folder, "root");
const server = createServer();

before(async () => {
  mkdirSync(join(root, "dir"), { recursive: true });
  writeFileSync(join(folder, "outside"), "secret");
  writeFileSync(join(root, "dir/file"), "words");
  execFileSync("mkfifo", [join(root, "fifo")]);
  symlinkSync("fifo", join(root, "to-fifo"));
  symlinkSync("../../../outside", join(root, "up"));
  symlinkSync(join(folder, "outside"), join(root, "absolute"));
  symlinkSync("loop", join(root, "loop"));
  writeFileSync(join(root, "big"), "");
  truncateSync(join(root, "big"), (16 << 20) + 1);
  await new Promise<void>((resolve) => server.listen(join(root, "socket"), resolve));
});

after(async () => {
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

function failure(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return errorMessage(error);
  }
  throw new Error("no failure");
}

describe("files of trees, as frontends and clients read them", { timeout: 10_000 }, () => {
  it("never waits for a pipe, and reads nothing but files", () => {
    for (const read of [readTreeFile, readContainerFile]) {
      for (const path of ["/fifo", "/to-fifo", "/socket", "/dir"]) {
        assert.equal(
          failure(() => read(root, path)),
          `open ${path}: not a regular file`,
        );
      }
      assert.match(
        failure(() => read(root, "/big")),
        /exceeds maximum allowed size of 16777216 bytes/,
      );
      assert.equal(read(root, "/big", { offset: 1 << 20, length: 3 }).length, 3);
      assert.match(
        failure(() => read(root, "/dir/file", { offset: -1, length: 1 })),
        /invalid range/,
      );
    }
  });

  it("never leaves the tree", () => {
    for (const path of ["/up", "/absolute", "/../../outside", "/dir/../../../outside"]) {
      assert.match(
        failure(() => readTreeFile(root, path)),
        /no such file or directory/,
      );
      assert.match(
        failure(() => readContainerFile(root, path)),
        /no such file or directory/,
      );
    }
    assert.equal(
      failure(() => readTreeFile(root, "/loop")),
      "too many links",
    );
    assert.equal(
      failure(() => statTreeFile(root, "/loop")),
      "too many links",
    );
  });

  it("lists and describes what is there", () => {
    for (const list of [readTreeDir, readContainerDir]) {
      assert.deepEqual(
        list(root, "/dir", "").map(({ path, size }) => [path, size]),
        [["file", 5n]],
      );
      assert.deepEqual(
        list(root, "/", "*i[r]*").map(({ path }) => path),
        ["dir"],
      );
    }
    assert.equal(
      failure(() => readTreeDir(root, "/", "[")),
      "invalid includepatterns: [[]: syntax error in pattern",
    );
    assert.equal(statTreeFile(root, "dir/file").path, "file");
    assert.equal(statContainerFile(root, "/fifo").size, 0n);
  });
});
