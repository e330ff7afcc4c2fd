/**
 * Bundles the example frontends: `node examples/bundle.ts` writes `dist/frontend.mjs` beside each one's
 * Dockerfile, which makes the image of it.
 */
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");

/** Example → its program. */
const FRONTENDS: Readonly<Record<string, string>> = {
  frontend: "examples/frontend/src/main.ts",
  "dockerfile-frontend": "packages/client/src/frontend/dockerfile-frontend-main.ts",
};

for (const [name, entry] of Object.entries(FRONTENDS)) {
  await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile: `examples/${name}/dist/frontend.mjs`,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node24",
    logLevel: "warning",
    supported: { using: true },
    // Some dependencies are CommonJS and ask for Node's modules by require.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
}
