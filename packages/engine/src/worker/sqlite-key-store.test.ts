import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { keyStoreSuite } from "@kiln/solver/testing";
import { Database } from "@kiln/store";
import { SqliteKeyStore } from "./sqlite-key-store.ts";

keyStoreSuite(test, "sqlite", {
  make() {
    const db = new Database(":memory:");
    return { store: new SqliteKeyStore(db), close: () => db[Symbol.dispose]() };
  },
});

test("keeps everything over a restart", () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-keys-"));
  try {
    const path = join(dir, "cache.db");
    const link = { input: 1, output: 0, digest: "sha256:op", selector: "sel" };
    {
      using db = new Database(path, { synchronous: "normal" });
      const store = new SqliteKeyStore(db);
      store.batch(() => {
        store.addResult("a", { id: "r", createdAtNs: 1_700_000_000_123_456_789n });
        store.addLink("root", link, "a");
        store.addLink("root", { ...link, digest: "sha256:gone" }, "b");
        store.removeLink("root", { ...link, digest: "sha256:gone" }, "b");
      });
      assert.throws(() => {
        store.batch(() => {
          store.addResult("half", { id: "r2", createdAtNs: 1n });
          throw new Error("no");
        });
      }, /no/);
    }
    using db = new Database(path);
    const store = new SqliteKeyStore(db);
    assert.deepEqual(store.results("a"), [{ id: "r", createdAtNs: 1_700_000_000_123_456_789n }]);
    assert.deepEqual(store.links("root", link), ["a"]);
    assert.deepEqual([...store.ids()].sort(), ["a", "root"]);
    assert.equal(db.get("SELECT count(*) AS n FROM cache_link_names")?.n, 1);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
