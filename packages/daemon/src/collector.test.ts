import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "./collector.ts";
import { Logger } from "./log.ts";

test("the cap is looked at while builds run, and only then", async () => {
  let runs = 0;
  const refs = {
    enforce: async () => {
      runs++;
      if (runs === 1) throw new Error("a full disk");
    },
  };
  const lines: string[] = [];
  const log = new Logger({ format: "text", level: "info" }, (line) => lines.push(line));
  using collector = new Collector(refs, [{ all: true, maxUsedSpace: 1 }], { log, watchIntervalMs: 10 });
  await sleep(50);
  assert.equal(runs, 0);
  const first = collector.watch();
  const second = collector.watch();
  await sleep(100);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  const before = runs;
  assert.ok(before >= 2, "a failure ends nothing");
  assert.match(lines.join(""), /garbage collection failed.*a full disk/);
  await sleep(100);
  assert.ok(runs > before, "another build still runs");
  second[Symbol.dispose]();
  const after = runs;
  await sleep(50);
  assert.equal(runs, after);
});
