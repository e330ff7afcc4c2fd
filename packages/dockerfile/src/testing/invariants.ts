import assert from "node:assert/strict";
import { definitionMessage, loadDefinition } from "@kiln/llb";
import { compileDockerfile, fixDockerfile, lintDockerfile, parseDockerfile } from "../index.ts";

/** What must hold for any text: no exception, sound positions, a loadable result, and fixes that stay fixed. */
export async function checkInvariants(text: string): Promise<void> {
  const lines = text.split("\n").length;
  const parsed = parseDockerfile(text);
  for (const { ranges } of [...parsed.diagnostics, ...lintDockerfile(text)]) {
    for (const { start, end } of ranges) {
      assert.ok(
        start.line >= 0 && end.line <= lines + 1 && start.line <= end.line,
        "a range outside the file",
      );
    }
  }
  const { definition, diagnostics } = await compileDockerfile(text);
  assert.ok(definition !== undefined || diagnostics.some(({ severity }) => severity === "error"));
  if (definition !== undefined && definition.def.length > 0) loadDefinition(definitionMessage(definition));
  const fixed = fixDockerfile(text);
  if (fixed.fixes.length === 0) assert.equal(fixed.text, text);
  else assert.deepEqual(fixDockerfile(fixed.text).fixes, [], "a fix that needs fixing");
}
