// Tries random Dockerfiles until told to stop: node fuzz.ts [CASES [SEED]]
import fc from "fast-check";
import { dockerfileText } from "../src/testing/arbitrary.ts";
import { checkInvariants } from "../src/testing/invariants.ts";

const BATCH = 20_000;
const cases = Number(process.argv[2] ?? 10_000_000);
const seed = Number(process.argv[3] ?? Date.now() & 0x7fffffff);
const start = performance.now();
for (let done = 0; done < cases; done += BATCH) {
  const numRuns = Math.min(BATCH, cases - done);
  await fc.assert(fc.asyncProperty(dockerfileText, checkInvariants), { numRuns, seed: seed + done });
  const perSecond = ((done + numRuns) / (performance.now() - start)) * 1000;
  process.stdout.write(`\r${done + numRuns} cases, ${perSecond.toFixed(0)} a second`);
}
process.stdout.write(`\nseed ${seed}: nothing found\n`);
