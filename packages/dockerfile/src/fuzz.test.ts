import { test } from "node:test";
import fc from "fast-check";
import { dockerfileText } from "./testing/arbitrary.ts";
import { checkInvariants } from "./testing/invariants.ts";

test("any text is parsed, checked, fixed and compiled without an exception", async () => {
  await fc.assert(fc.asyncProperty(dockerfileText, checkInvariants), { numRuns: 1500 });
});
