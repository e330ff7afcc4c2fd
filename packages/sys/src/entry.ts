import { fileURLToPath } from "node:url";

/**
 * Path of a program that runs as a worker thread or child process: `name` is its file name without
 * ending, in the folder of the module that asks (pass `import.meta.url`).
 *
 * In the source tree that is the `.ts` file itself; in a bundle it is the `.cjs` file that the build
 * puts beside the bundle for every source file named `*-worker.ts` or `*-zygote.ts`.
 */
export function entryPath(importMetaUrl: string, name: string): string {
  const ending = importMetaUrl.endsWith(".ts") ? "ts" : "cjs";
  return fileURLToPath(new URL(`./${name}.${ending}`, importMetaUrl));
}
