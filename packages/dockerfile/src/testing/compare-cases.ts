// Compares this package's answers with recorded ones: node compare-cases.ts FOLDER [PATTERN]
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { GoldenImages } from "./golden-backend.ts";
import { answerFacets, firstDifference, forgetChance, recordedFacets } from "./golden-facets.ts";

const folder = process.argv[2] ?? ".";
const pattern = new RegExp(process.argv[3] ?? "");
const images = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../testdata/images.json"), "utf8"),
) as GoldenImages;

let passed = 0;
let total = 0;
const failures = new Map<string, number>();
for (const id of readdirSync(folder).sort()) {
  const dir = join(folder, id);
  if (!pattern.test(id) || !existsSync(join(dir, "expected.json"))) continue;
  total++;
  const options = JSON.parse(readFileSync(join(dir, "options.json"), "utf8"));
  const want = recordedFacets(JSON.parse(readFileSync(join(dir, "expected.json"), "utf8")));
  try {
    const got = await answerFacets({ ...options, id, dir }, images);
    forgetChance(want, got);
    const wrong = [...new Set([...Object.keys(want), ...Object.keys(got)])].filter(
      (key) => firstDifference(want[key], got[key]) !== undefined,
    );
    if (wrong.length === 0) {
      passed++;
      continue;
    }
    const first = wrong.includes("error") ? "error" : wrong.includes("ops") ? "ops" : wrong[0]!;
    failures.set(first, (failures.get(first) ?? 0) + 1);
    process.stdout.write(
      `${id}: ${wrong.join(" ")}\n    ${first}${firstDifference(want[first], got[first])}\n`,
    );
  } catch (error) {
    process.stdout.write(`${id}: CRASH ${error instanceof Error ? error.stack : error}\n`);
  }
}
process.stdout.write(`${passed}/${total} pass; ${[...failures].map(([k, n]) => `${k} ${n}`).join(", ")}\n`);
