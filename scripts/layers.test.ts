import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "..");

/** Lowest row first; a package imports only from lower rows and from its left in its own row. */
const ROWS: readonly (readonly string[])[] = [
  ["base", "formats", "patterns", "oci", "api"],
  ["llb", "dockerfile", "hcl", "bake", "progress", "solver"],
  ["sys", "grpc", "archive", "store", "registry"],
  ["session", "executor"],
  ["engine"],
  ["daemon", "client"],
  ["driver", "cli"],
];

/** Rows below this index also run in a browser. */
const FIRST_NODE_ROW = 2;

/** What `solver` must never know: it is generic over ops and results. */
const SOLVER_MUST_NOT_KNOW = ["llb", "oci", "api"];

const order = ROWS.flat();

function isTest(file: string): boolean {
  return file.endsWith(".test.ts") || file.includes("/testing/") || file.includes("/fuzz/");
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/(?:from\s+|import\s*\(\s*|import\s+)"([^"]+)"/g)].map((m) => m[1] ?? "");
}

test("packages import only what stands below them", () => {
  const wrong: string[] = [];
  for (const file of globSync("packages/*/src/**/*.{ts,tsx}", { cwd: root })) {
    const owner = file.split("/")[1] ?? "";
    assert.ok(order.includes(owner), `package ${owner} has no place in the layers`);
    if (isTest(file)) continue;
    for (const spec of importsOf(join(root, file))) {
      const target = /^@kiln\/([^/]+)/.exec(spec)?.[1];
      if (target !== undefined && target !== owner && order.indexOf(target) >= order.indexOf(owner)) {
        wrong.push(`${file} imports ${spec}`);
      }
      if (target !== undefined && owner === "solver" && SOLVER_MUST_NOT_KNOW.includes(target)) {
        wrong.push(`${file} imports ${spec}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

test("the lower layers know nothing of Node", () => {
  const portable = new Set(ROWS.slice(0, FIRST_NODE_ROW).flat());
  const wrong: string[] = [];
  for (const file of globSync("packages/*/src/**/*.ts", { cwd: root })) {
    if (!portable.has(file.split("/")[1] ?? "") || isTest(file)) continue;
    for (const spec of importsOf(join(root, file))) {
      if (spec.startsWith("node:")) wrong.push(`${file} imports ${spec}`);
    }
    if (
      /(?<![\w.])(?:Buffer\.|process\.)/.test(
        readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, ""),
      )
    ) {
      wrong.push(`${file} uses a global of Node`);
    }
  }
  assert.deepEqual(wrong, []);
});

test("every package says what it is", () => {
  for (const name of order) {
    const folder = join(root, "packages", name);
    assert.ok(existsSync(join(folder, "src/index.ts")), `${name} has no src/index.ts`);
    assert.ok(existsSync(join(folder, "README.md")), `${name} has no README.md`);
  }
});
