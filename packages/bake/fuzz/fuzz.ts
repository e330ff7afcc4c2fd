// Tries random definitions until told to stop: node fuzz.ts [CASES [SEED]]
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { mutated, randomDefinition } from "../src/testing/definition-arbitrary.ts";
import { checkDefinition } from "../src/testing/definition-invariants.ts";

const BATCH = 5_000;
const cases = Number(process.argv[2] ?? 10_000_000);
const seed = Number(process.argv[3] ?? Date.now() & 0x7fffffff);
const directory = new URL("../testdata/", import.meta.url);
const encoder = new TextEncoder();
const recorded = readdirSync(directory)
  .filter((name) => name.endsWith(".json"))
  .flatMap((name) => JSON.parse(readFileSync(new URL(name, directory), "utf8")) as { files: object }[])
  .map(({ files }) =>
    Object.entries(files)
      .filter(([name]) => /\.(hcl|json|ya?ml)$/.test(name))
      .map(([name, text]) => ({ name, data: encoder.encode(String(text)) })),
  )
  .filter((files) => files.length > 0);
const anyDefinition = fc.oneof(
  randomDefinition.map(({ name, text }) => [{ name, data: encoder.encode(text) }]),
  fc.constantFrom(...recorded).chain(mutated),
);

const start = performance.now();
for (let done = 0; done < cases; done += BATCH) {
  const numRuns = Math.min(BATCH, cases - done);
  fc.assert(fc.property(anyDefinition, checkDefinition), { numRuns, seed: seed + done });
  const perSecond = ((done + numRuns) / (performance.now() - start)) * 1000;
  process.stdout.write(`\r${done + numRuns} cases, ${perSecond.toFixed(0)} a second`);
}
process.stdout.write(`\nseed ${seed}: nothing found\n`);
