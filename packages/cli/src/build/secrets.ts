import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { SecretOption } from "@kiln/bake";
import { BuildError, nodeReason } from "@kiln/base";

type Env = Readonly<Record<string, string | undefined>>;

/** Largest secret that BuildKit takes. */
export const MAX_SECRET_BYTES = 500 * 1024;

/** Secrets by id; a value is read when the build asks for it. */
export type SecretSources = ReadonlyMap<string, () => Promise<Uint8Array>>;

/** Where each secret's value comes from. Files are looked at now, so that a wrong name fails before the build. */
export function prepareSecrets(options: readonly SecretOption[], env: Env): SecretSources {
  const sources = new Map<string, () => Promise<Uint8Array>>();
  for (const option of options) {
    if (option.id === "") throw new BuildError("invalid_argument", "secret missing ID");
    sources.set(option.id, sourceOf(option, env));
  }
  return sources;
}

function sourceOf(option: SecretOption, env: Env): () => Promise<Uint8Array> {
  const name =
    option.env ?? (option.src === undefined && env[option.id] !== undefined ? option.id : undefined);
  if (name !== undefined) {
    return () => {
      const value = env[name];
      if (value === undefined) {
        const message = `could not find environment variable ${JSON.stringify(name)} for secret ${JSON.stringify(option.id)}`;
        return Promise.reject(new BuildError("not_found", message));
      }
      return Promise.resolve(new TextEncoder().encode(value));
    };
  }
  const path = option.src ?? option.id;
  let size: number;
  try {
    size = statSync(path).size;
  } catch (error) {
    throw new BuildError("not_found", `failed to stat ${path}: stat ${path}: ${nodeReason(error)}`, {
      cause: error,
    });
  }
  if (size > MAX_SECRET_BYTES) {
    throw new BuildError("invalid_argument", `secret ${option.id} too big. max size 500KiB`);
  }
  return () => readFile(path);
}
