// Compares this package's answers with recorded ones, and keeps those that agree as golden data:
//   node compare-cases.ts FOLDER [PATTERN [TARGET]]
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { base64FromBytes } from "@kiln/formats";
import type { GoldenImages } from "./golden-backend.ts";
import { answerFacets, firstDifference, forgetChance, recordedFacets } from "./golden-facets.ts";
import { caseOf, compact, type GoldenFile } from "./golden-file.ts";

const [folder = ".", match = "", target] = process.argv.slice(2);
const pattern = new RegExp(match);
const images = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../testdata/images.json"), "utf8"),
) as GoldenImages;

function readFiles(dir: string): Record<string, string> {
  const files: Record<string, string> = {};
  for (const name of readdirSync(dir, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(dir, name);
    if (name === "options.json" || name === "expected.json" || !statSync(path).isFile()) continue;
    const bytes = readFileSync(path);
    const text = bytes.toString("utf8");
    const isText = Buffer.from(text, "utf8").equals(bytes) && !text.startsWith("base64:");
    files[relative(dir, path)] = isText ? text : `base64:${base64FromBytes(bytes)}`;
  }
  return files;
}

let passed = 0;
let total = 0;
for (const id of readdirSync(folder).sort()) {
  const dir = join(folder, id);
  if (!pattern.test(id) || !existsSync(join(dir, "expected.json"))) continue;
  total++;
  const options = JSON.parse(readFileSync(join(dir, "options.json"), "utf8"));
  const want = recordedFacets(JSON.parse(readFileSync(join(dir, "expected.json"), "utf8")));
  const golden: GoldenFile = { ...options, files: readFiles(dir), expected: {} };
  try {
    const got = await answerFacets(caseOf(id, golden), images);
    // Hashes must not depend on what the original leaves to chance.
    const own = structuredClone(got);
    forgetChance(want, got);
    const wrong = [...new Set([...Object.keys(want), ...Object.keys(got)])].filter(
      (key) => firstDifference(want[key], got[key]) !== undefined,
    );
    if (wrong.length > 0) {
      const first = ["error", "ops"].find((key) => wrong.includes(key)) ?? wrong[0]!;
      const where = firstDifference(want[first], got[first]);
      process.stdout.write(`${id}: ${wrong.join(" ")}\n    ${first}${where}\n`);
      continue;
    }
    passed++;
    if (target === undefined) continue;
    const file = { ...golden, expected: compact(own) };
    writeFileSync(join(target, `${id}.json`), `${JSON.stringify(file, undefined, 1)}\n`);
  } catch (error) {
    process.stdout.write(`${id}: CRASH ${error instanceof Error ? error.stack : error}\n`);
  }
}
process.stdout.write(`${passed}/${total} pass\n`);
