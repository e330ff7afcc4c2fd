import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { createLeaseStore, Database, FileContentStore } from "./index.ts";
import { SpaceReserve } from "./space-reserve.ts";
import { digestOf } from "./testing/store-fixture.ts";

let root: string;
let db: Database;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "kiln-content"));
  db = new Database(join(root, "kiln.db"));
});
afterEach(() => {
  db[Symbol.dispose]();
  rmSync(root, { recursive: true, force: true });
});

const data = Buffer.from("hello");
const digest = digestOf(data);

test("transactions nest and undo", () => {
  db.migrate("t", ["CREATE TABLE t (x INTEGER) STRICT"]);
  db.migrate("t", ["CREATE TABLE t (x INTEGER) STRICT", "ALTER TABLE t ADD COLUMN y TEXT"]);
  assert.throws(() => db.migrate("t", []), { code: "failed_precondition" });
  const rows = (): unknown[] => db.all("SELECT x FROM t ORDER BY x").map((row) => row.x);
  db.transaction(() => {
    db.run("INSERT INTO t VALUES (1, '')");
    assert.throws(() =>
      db.transaction(() => {
        db.run("INSERT INTO t VALUES (2, '')");
        throw new Error("no");
      }),
    );
    db.transaction(() => db.run("INSERT INTO t VALUES (3, '')"));
  });
  assert.throws(() =>
    db.transaction(() => {
      db.run("INSERT INTO t VALUES (4, '')");
      throw new Error("no");
    }),
  );
  db.durably(() => db.run("INSERT INTO t VALUES (5, '')"));
  assert.deepEqual(rows(), [1, 3, 5]);
});

test("blobs are verified, read by range, labelled and found again", async () => {
  const store = new FileContentStore(root, db);
  await assert.rejects(store.write(data, { digest: digestOf(Buffer.from("x")) }), { code: "data_loss" });
  await assert.rejects(store.write(data, { sizeBytes: 4 }), { code: "failed_precondition" });
  await assert.rejects(store.write(data, { sizeBytes: 6 }), { code: "failed_precondition" });
  await assert.rejects(store.write(data, { maxBytes: 4 }), { code: "resource_exhausted" });
  assert.deepEqual(readdirSync(join(root, "ingest")), []);
  const [one, two] = await Promise.all([
    store.write(data, { digest, labels: { a: "1" } }),
    store.write(data),
  ]);
  assert.deepEqual([one.digest, two.size], [digest, 5]);
  const parts: Uint8Array[] = [];
  for await (const chunk of store.read(digest, { offset: 1, length: 3 })) parts.push(chunk);
  assert.equal(Buffer.concat(parts).toString(), "ell");
  store.setLabels(digest, { b: "2", a: undefined });
  const again = new FileContentStore(root, db);
  assert.deepEqual([...again.info(digest).labels], [["b", "2"]]);
  assert.equal(Buffer.from(await again.readAll(digest)).toString(), "hello");
  await assert.rejects(again.readAll(digest, 4), { code: "resource_exhausted" });
  assert.throws(() => again.path("sha256:../../etc/passwd"), { code: "invalid_argument" });
  assert.throws(() => again.info("sha256:00"), { code: "not_found" });
});

test("damage is found, strays are adopted", async () => {
  const store = new FileContentStore(root, db);
  await store.write(data);
  writeFileSync(store.path(digest), "hellO");
  const got: Uint8Array[] = [];
  await assert.rejects(
    async () => {
      for await (const chunk of store.read(digest)) got.push(chunk);
    },
    { code: "data_loss" },
  );
  assert.deepEqual(got, []);
  assert.equal(store.has(digest), false);
  await store.write(data);
  writeFileSync(store.path(digest), "hell");
  assert.equal(new FileContentStore(root, db).has(digest), false);
  writeFileSync(store.path(digest), data);
  writeFileSync(join(root, "ingest", "half"), "x");
  const again = new FileContentStore(root, db);
  assert.equal(again.has(digest), true);
  assert.deepEqual(readdirSync(join(root, "ingest")), []);
  const file = join(again.ingestDir, "made");
  writeFileSync(file, "x");
  await again.adopt(file, { digest: digestOf(Buffer.from("x")), sizeBytes: 1 });
  assert.equal(readFileSync(again.path(digestOf(Buffer.from("x"))), "utf8"), "x");
});

test("leases expire and hold", () => {
  let now = 0;
  const leases = createLeaseStore(db, { now: () => now });
  leases.create("a", { expiresAt: 10, labels: { x: "y" } });
  leases.add("a", { kind: "content", id: digest });
  leases.add("a", { kind: "content", id: digest });
  assert.equal(leases.holds({ kind: "content", id: digest }), true);
  assert.equal(leases.holds({ kind: "snapshot", id: digest }), false);
  assert.deepEqual(leases.resources("a"), [{ kind: "content", id: digest }]);
  assert.equal(leases.get("a")?.labels.get("x"), "y");
  now = 10;
  assert.equal(leases.holds({ kind: "content", id: digest }), false);
  assert.deepEqual(createLeaseStore(db, { now: () => now }).list(), []);
});

test("a full disk undoes a transaction as a whole, says so, and freeing space is enough to go on", () => {
  db.migrate("t", ["CREATE TABLE t (x INTEGER, y BLOB) STRICT"]);
  const insert = (x: number, bytes: number): number =>
    db.run("INSERT INTO t VALUES (?, ?)", x, new Uint8Array(bytes));
  const rows = (): unknown[] => db.all("SELECT x FROM t ORDER BY x").map((row) => row.x);
  insert(1, 10);
  const pages = Number(db.get("PRAGMA page_count")?.page_count) + 5;
  db.get(`PRAGMA max_page_count = ${pages}`);
  const full = { code: "resource_exhausted", message: /^write \S+kiln\.db: no space left on device$/ };
  assert.throws(() => insert(2, 100_000), full);
  assert.throws(
    () =>
      db.transaction(() => {
        insert(3, 10);
        assert.throws(() => db.transaction(() => insert(4, 100_000)), full);
        insert(5, 10); // what was before it is gone: it must not stay alone
      }),
    { code: "aborted" },
  );
  assert.throws(() => db.transaction(() => insert(6, 100_000)), full);
  assert.deepEqual(rows(), [1]);
  db.get("PRAGMA max_page_count = 1000000");
  db.transaction(() => insert(7, 100_000));
  assert.deepEqual(rows(), [1, 7]);
});

test("a reserve of space is given up when the disk is full, and made again", () => {
  const file = join(root, "reserve");
  let free = 1 << 30;
  const reserve = new SpaceReserve(file, () => free);
  reserve.restore();
  assert.equal(statSync(file).size, 2 << 20);
  reserve.release();
  assert.ok(existsSync(file));
  free = 0;
  reserve.release();
  assert.ok(!existsSync(file));
  reserve.restore();
  assert.ok(!existsSync(file));
  free = 1 << 30;
  reserve.restore();
  assert.ok(existsSync(file));
});
