import assert from "node:assert/strict";
import { test } from "node:test";
import { createDeferred } from "@kiln/base";
import { Flights } from "./flights.ts";

test("work that was cancelled has ended before it is done anew", async () => {
  const flights = new Flights();
  const events: string[] = [];
  const gate = createDeferred<void>();
  const leaving = new AbortController();
  const first = flights.run("key", { signal: leaving.signal }, async () => {
    events.push("first begins");
    await gate.promise;
    events.push("first ends");
  });
  leaving.abort(new Error("left"));
  await assert.rejects(first, /left/);
  const second = flights.run("key", { signal: new AbortController().signal }, async () => {
    events.push("second");
    return 2;
  });
  const third = flights.run("key", { signal: new AbortController().signal }, async () => {
    events.push("third");
    return 3;
  });
  gate.resolve();
  assert.deepEqual(await Promise.all([second, third]), [2, 2]);
  assert.deepEqual(events, ["first begins", "first ends", "second"]);
});
