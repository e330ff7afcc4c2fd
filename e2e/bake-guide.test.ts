import assert from "node:assert/strict";
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { checkFiles, checkOutput, readGuide } from "./support/guide.ts";
import { BIN } from "./support/kilnd.ts";
import { must, run } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

const ROOT = join(import.meta.dirname, "..");
const GUIDE = join(ROOT, "docs/guide/bake.md");
const EXAMPLES = readGuide(GUIDE);
const COMMAND_TIMEOUT_MS = 120_000;

let bed: TestBed;

before(async () => {
  bed = await openTestBed("bake-guide");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

test("every example is in the guide, and runs something", () => {
  const folders = EXAMPLES.map(({ folder }) => basename(folder)).sort();
  assert.deepEqual(folders, readdirSync(join(ROOT, "examples/bake")).sort());
  for (const { commands } of EXAMPLES) assert.ok(commands.length > 0);
});

for (const example of EXAMPLES) {
  test(`the guide's commands print what it shows: ${example.folder}`, async () => {
    checkFiles(ROOT, example);
    const folder = join(bed.folder, "guide", basename(example.folder));
    mkdirSync(folder, { recursive: true });
    cpSync(join(ROOT, example.folder), folder, { recursive: true });
    const env = { ...bed.env(), PATH: [BIN, process.env.PATH].join(delimiter) };
    const identity = ["-c", "user.name=guide", "-c", "user.email=guide@example.com"];
    for (const args of [
      ["init", "-q"],
      ["add", "-A"],
      ["commit", "-q", "-m", "start"],
    ])
      await must("git", [...identity, ...args], { cwd: folder, env });
    for (const { line, output } of example.commands) {
      const result = await run("sh", ["-c", line], { cwd: folder, env, timeoutMs: COMMAND_TIMEOUT_MS });
      assert.equal(result.code, 0, `${line}\n${result.stderr}`);
      checkOutput(result.stdout, output, line);
    }
  });
}
