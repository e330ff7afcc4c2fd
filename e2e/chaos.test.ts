import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CHAOS_SETTINGS, chaos } from "./support/chaos.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("chaos", { settings: CHAOS_SETTINGS });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

test("killed at random moments of builds, exports, pulls and prunes, the daemon comes back whole", async () => {
  const rounds = await chaos(bed, { rounds: 2, seed: 7 });
  assert.equal(rounds.length, 2);
  assert.doesNotMatch(bed.daemon().log(), /msg=uncaught|was damaged/);
});
