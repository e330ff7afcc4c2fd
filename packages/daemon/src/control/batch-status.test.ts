import assert from "node:assert/strict";
import { test } from "node:test";
import type { SolveStatus } from "@kiln/solver";
import { batchStatus } from "./batch-status.ts";

function log(text: string): SolveStatus {
  const data = new TextEncoder().encode(text);
  return {
    vertexes: [],
    statuses: [],
    logs: [{ vertex: "v", stream: 1, data, timestampMs: 0 }],
    warnings: [],
  };
}

async function texts(progress: AsyncIterable<SolveStatus>): Promise<string[]> {
  const out: string[] = [];
  for await (const status of progress) {
    out.push(status.logs.map((one) => new TextDecoder().decode(one.data)).join(""));
  }
  return out;
}

test("what follows at once is one message, in order; what comes later is another", async () => {
  const gate = Promise.withResolvers<void>();
  async function* source(): AsyncGenerator<SolveStatus> {
    yield log("a");
    yield log("b");
    yield log("c");
    await gate.promise;
    yield log("d");
  }
  const batches = batchStatus(source(), 5);
  const first = await batches.next();
  gate.resolve();
  assert.equal(first.value?.logs.length, 3);
  assert.deepEqual(await texts(batches), ["d"]);
});

test("a failure comes after what was said before it, and the source is left when the reader leaves", async () => {
  let left = false;
  async function* source(): AsyncGenerator<SolveStatus> {
    try {
      yield log("a");
      yield log("b");
      throw new Error("broken");
    } finally {
      left = true;
    }
  }
  const batches = batchStatus(source(), 5);
  assert.equal((await batches.next()).value?.logs.length, 2);
  await assert.rejects(batches.next(), /broken/);
  assert.equal(left, true);
});
