import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { localMount, type Mount } from "@kiln/sys";
import { Database } from "../database.ts";
import type { Snapshotter } from "../snapshotter.ts";
import { TreePool } from "../tree-job.ts";

/** What a factory gets to make a snapshotter from. */
export interface SnapshotterEnv {
  readonly root: string;
  readonly db: Database;
  readonly trees: TreePool;
}

/** Every implementation of {@link Snapshotter} passes this. */
export function snapshotterSuite(name: string, make: (env: SnapshotterEnv) => Snapshotter): void {
  const run = async (body: (make: () => Snapshotter, root: string) => Promise<void>): Promise<void> => {
    const root = mkdtempSync(join(tmpdir(), "kiln-snap"));
    const db = new Database(join(root, "kiln.db"));
    const trees = new TreePool();
    try {
      await body(() => make({ root: join(root, "snapshots"), db, trees }), root);
    } finally {
      await trees[Symbol.asyncDispose]();
      db[Symbol.dispose]();
      rmSync(root, { recursive: true, force: true });
    }
  };
  const write = (mounts: readonly Mount[], file: string, text: string): void => {
    using dir = localMount(mounts);
    mkdirSync(join(dir.path, "d"), { recursive: true });
    writeFileSync(join(dir.path, file), text);
  };
  const list = (mounts: readonly Mount[]): string[] => {
    using dir = localMount(mounts, { forReading: true });
    return readdirSync(dir.path).sort();
  };

  describe(name, () => {
    test("prepare, commit, stack, view", () =>
      run(async (open) => {
        const s = open();
        write(await s.prepare("a"), "one", "1");
        await s.commit("A", "a");
        assert.equal(s.exists("a"), false);
        write(await s.prepare("b", "A"), "two", "2");
        {
          using dir = localMount(s.mounts("b"));
          rmSync(join(dir.path, "one"));
        }
        await s.commit("B", "b");
        await s.prepare("c", "B");
        assert.deepEqual(list(s.mounts("c")), ["d", "two"]);
        assert.deepEqual(list(s.mounts("A")), ["d", "one"]);
        assert.deepEqual(list(await s.view("v", "B")), ["d", "two"]);
        {
          using dir = localMount(s.mounts("v"));
          assert.throws(() => writeFileSync(join(dir.path, "x"), ""), { code: "EROFS" });
          assert.equal(readFileSync(join(dir.path, "two"), "utf8"), "2");
        }
        assert.equal(s.stat("B").parent, "A");
        assert.equal(s.stat("B").kind, "committed");
        assert.ok((await s.usage("B")).sizeBytes > 0);
        await s.remove("v");
        await s.remove("c");
        await s.remove("B");
        assert.deepEqual(
          [...s.walk()].map((info) => info.name),
          ["A"],
        );
      }));

    test("refusals", () =>
      run(async (open) => {
        const s = open();
        await s.prepare("a");
        await assert.rejects(s.prepare("a"), { code: "already_exists" });
        await assert.rejects(s.prepare("b", "a"), { code: "invalid_argument" });
        await assert.rejects(s.prepare("b", "none"), { code: "not_found" });
        await s.commit("A", "a");
        await assert.rejects(s.commit("A2", "A"), { code: "failed_precondition" });
        await s.prepare("b", "A");
        await assert.rejects(s.remove("A"), { code: "failed_precondition" });
        await assert.rejects(s.commit("A", "b"), { code: "already_exists" });
        await s.view("v", "A");
        await assert.rejects(s.commit("V", "v"), { code: "failed_precondition" });
        assert.throws(() => s.mounts("none"), { code: "not_found" });
      }));

    test("cleanup repairs both ways", () =>
      run(async (open, root) => {
        const s = open();
        write(await s.prepare("a"), "one", "1");
        await s.commit("A", "a");
        write(await s.prepare("b", "A"), "two", "2");
        await s.commit("B", "b");
        await s.prepare("keep");
        await s.view("v", "A");
        const [kind] = s.upperDir("B") === undefined ? [""] : ["fs"];
        const dirOf = (key: string): string => {
          const source = s.upperDir(key) ?? (s.mounts(key)[0] as Mount).source;
          return kind === "fs" ? join(source, "..") : source;
        };
        rmSync(dirOf("A"), { recursive: true });
        mkdirSync(join(root, "snapshots", "9999", "x"), { recursive: true });
        const lost = await open().cleanup();
        assert.deepEqual([...lost].sort(), ["A", "B"]);
        assert.deepEqual(
          [...s.walk()].map((info) => info.name),
          ["keep"],
        );
        assert.equal(existsSync(join(root, "snapshots", "9999")), false);
      }));
  });
}
