import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { runCommand } from "./testing/command.ts";
import { memoryHost } from "./testing/memory-host.ts";

/** Definitions with what Buildx 0.37.2 prints for them. */
interface PrintCase {
  readonly name: string;
  readonly files: Readonly<Record<string, string>>;
  readonly runs: readonly PrintRun[];
}

interface PrintRun {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdin?: string;
  /** JSON that is printed. */
  readonly print?: unknown;
  /** Other text that is printed. */
  readonly text?: string;
  /** The original writes some lists in any order. */
  readonly loose?: boolean;
  /** The first line of the message; "" where the original's differs from run to run. */
  readonly error?: string;
}

const DIRECTORY = new URL("../testdata/", import.meta.url);
const SURROUNDINGS = { PATH: "/usr/bin:/bin", HOME: "/work/home", SSH_AUTH_SOCK: "/work/home/agent.sock" };

function unordered(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(unordered).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  }
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unordered(item)]));
}

function check({ name, files }: PrintCase, run: PrintRun): void {
  const what = `${name}: ${run.argv.join(" ")} ${JSON.stringify(run.env ?? {})}`;
  const host = memoryHost({
    files,
    sockets: [SURROUNDINGS.SSH_AUTH_SOCK],
    env: { ...SURROUNDINGS, ...run.env },
    cwd: run.cwd ?? ".",
  });
  const { code, stdout, stderr } = runCommand(run.argv, host, () =>
    new TextEncoder().encode(run.stdin ?? ""),
  );
  if (run.error !== undefined) {
    assert.equal(code, 1, what);
    const message = stderr.slice(stderr.lastIndexOf("ERROR:")).split("\n", 1)[0];
    if (run.error !== "") assert.equal(message, run.error, what);
    return;
  }
  assert.equal(stderr, "", what);
  if (run.text !== undefined) assert.equal(stdout, run.text, what);
  else {
    const printed: unknown = JSON.parse(stdout);
    if (run.loose === true) assert.deepEqual(unordered(printed), unordered(run.print), what);
    else assert.deepEqual(printed, run.print, what);
  }
}

for (const file of readdirSync(DIRECTORY).sort()) {
  if (!file.endsWith(".json")) continue;
  test(`print and list: ${file}`, () => {
    const cases = JSON.parse(readFileSync(new URL(file, DIRECTORY), "utf8")) as readonly PrintCase[];
    const problems: string[] = [];
    for (const item of cases) {
      for (const run of item.runs) {
        try {
          check(item, run);
        } catch (error) {
          problems.push(error instanceof Error ? error.message : String(error));
        }
      }
    }
    assert.equal(problems.slice(0, 10).join("\n\n"), "");
  });
}
