import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as library from "./index.ts";

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");
const blocks = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? "");

/** `expression; // JSON` and `expression;`, `// JSON` on two lines become assertions. */
function withAssertions(code: string): { code: string; count: number } {
  let count = 0;
  const asserted = code.replace(/^(\S.*);\s*\/\/ (["[{\d].*)$/gm, (all, expression: string, json: string) => {
    JSON.parse(json);
    count++;
    return all.startsWith("import") ? all : `assertEqual(${expression}, ${json});`;
  });
  return {
    code: asserted.replace(/^import \{([^}]*)\} from "@kiln\/dockerfile";$/gm, "const {$1} = library;"),
    count,
  };
}

const AsyncFunction = (async () => undefined).constructor as new (
  ...args: string[]
) => (...args: unknown[]) => Promise<void>;

describe("the README's examples give what they say", () => {
  for (const [i, block] of blocks.entries()) {
    it(`example ${i + 1}`, async () => {
      const { code, count } = withAssertions(block);
      assert.ok(count > 0, "an example says nothing");
      const run = new AsyncFunction("library", "assertEqual", stripTypeScriptTypes(code));
      const plain = (value: unknown): unknown =>
        value === undefined ? value : JSON.parse(JSON.stringify(value));
      await run(library, (actual: unknown, expected: unknown) =>
        assert.deepEqual(plain(actual), plain(expected)),
      );
    });
  }
});
