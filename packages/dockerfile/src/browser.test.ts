import assert from "node:assert/strict";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";

test("the library bundles for browsers and runs without Node", async () => {
  const { outputFiles, metafile } = await build({
    stdin: {
      contents: `
        import { checkDockerfile, compileDockerfile, fixDockerfile, parseDockerfile } from "./index.ts";
        globalThis.answer = (async () => ({
          stages: parseDockerfile("FROM a AS b\\n").ast.stages.length,
          fixed: fixDockerfile("FROM a as b\\n").text,
          found: (await checkDockerfile("FROM a\\nWORKDIR x\\n")).map(({ rule }) => rule.name),
          ops: (await compileDockerfile("FROM a\\nRUN <<E\\nx\\nE\\n")).definition.def.length,
        }))();`,
      resolveDir: import.meta.dirname,
      loader: "ts",
    },
    bundle: true,
    platform: "browser",
    format: "iife",
    write: false,
    metafile: true,
    supported: { using: true },
  });
  const imports = Object.values(metafile.inputs).flatMap((input) => input.imports.map(({ path }) => path));
  assert.deepEqual(
    imports.filter((path) => path.startsWith("node:")),
    [],
  );
  // What all browsers have beside the language itself.
  const page: Record<string, unknown> = {
    TextEncoder,
    TextDecoder,
    URL,
    crypto,
    atob,
    btoa,
    AbortSignal,
    AbortController,
  };
  runInContext(outputFiles[0]?.text ?? "", createContext(page));
  const answer = JSON.parse(JSON.stringify(await page.answer));
  assert.deepEqual(answer, { stages: 1, fixed: "FROM a AS b\n", found: ["WorkdirRelativePath"], ops: 3 });
});
