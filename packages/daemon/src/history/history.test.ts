import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type BuildHistoryRecord, BuildHistoryRecordSchema } from "@kiln/api/control";
import { StatusSchema } from "@kiln/api/rpcstatus";
import { Database } from "@kiln/store";
import { historyFilter } from "./history-filter.ts";
import { RecordTable } from "./record-table.ts";

const NOW = Date.parse("2026-03-01T12:00:00Z");

function record(
  ref: string,
  at: Partial<{ started: number; completed: number; error: string; context: string }>,
) {
  return create(BuildHistoryRecordSchema, {
    Ref: ref,
    CreatedAt: timestampFromMs(at.started ?? NOW),
    ...(at.completed === undefined ? {} : { CompletedAt: timestampFromMs(at.completed) }),
    ...(at.error === undefined ? {} : { error: create(StatusSchema, { code: 2, message: at.error }) }),
    FrontendAttrs: at.context === undefined ? {} : { context: at.context },
  });
}

const hour = 3600_000;
const RECORDS: BuildHistoryRecord[] = [
  record("running", { started: NOW - hour }),
  record("fine", { started: NOW - 3 * hour, completed: NOW - 2 * hour }),
  record("broken", { started: NOW - 30 * hour, completed: NOW - 30 * hour + 5000, error: "exit code: 1" }),
  record("stopped", {
    started: NOW - hour,
    completed: NOW,
    error: "context canceled",
    context: "https://example.com/app.git#main",
  }),
];

function found(...filters: string[]): string[] {
  return RECORDS.filter(historyFilter(filters, NOW)).map((one) => one.Ref);
}

test("filters: all parts of one, any of several", () => {
  assert.deepEqual(found(), ["running", "fine", "broken", "stopped"]);
  assert.deepEqual(found("status==error"), ["broken"]);
  assert.deepEqual(found("status==canceled", "ref==fine"), ["fine", "stopped"]);
  assert.deepEqual(found("startedAt>24h,status==completed"), ["fine"]);
  assert.deepEqual(found("completedAt<=2026-02-28T12:00:00Z,status!=running"), ["broken"]);
  assert.deepEqual(found("duration>=1h"), ["fine", "stopped"]);
  assert.deepEqual(found("repository~=example"), ["stopped"]);
});

test("filters that can't be read are refused", () => {
  assert.throws(() => found("startedAt>yesterday"), /invalid time yesterday/);
  assert.throws(() => found("duration<soon"), /invalid duration soon/);
  assert.throws(() => found("status!!error"), /failed to parse history filters/);
});

test("records go when they are both beyond the newest and old, unless pinned", () => {
  using db = new Database(":memory:");
  const table = new RecordTable(db);
  for (let n = 0; n < 6; n++) {
    const one = record(`r${n}`, { completed: NOW - n * hour });
    one.pinned = n === 5;
    table.put(one);
  }
  assert.deepEqual(table.expired(2, NOW - 3.5 * hour), ["r4"]);
  assert.deepEqual(table.expired(50, NOW), []);
  assert.equal(table.delete("r4"), true);
  assert.equal(table.get("r4"), undefined);
  assert.equal(table.get("r5")?.pinned, true);
});
