/** Caches of `type=local`: directories on this machine that the daemon reads and writes through the session. */
import { BuildError, errorMessage } from "@kiln/base";
import { type BlobStore, DirBlobStore } from "@kiln/session";
import { makeDirs } from "@kiln/session/client";
import { OciIndex } from "./oci-index.ts";
import type { TypedAttrs } from "./solve.ts";

/** Cache options as a solve takes them, and the stores that its session serves. */
export interface PreparedCaches {
  readonly imports: readonly TypedAttrs[];
  readonly exports: readonly TypedAttrs[];
  /** By the id under which the daemon asks for them. */
  readonly stores: ReadonlyMap<string, BlobStore>;
  /** Writes the exported caches into their directories' indexes, and deletes what `reset` asks for. */
  finish(response: ReadonlyMap<string, string>): Promise<void>;
}

interface Export {
  readonly dir: string;
  readonly tag: string;
  readonly resets: boolean;
}

/**
 * Checks cache options and completes those of local directories. A source that isn't there is left out, with a
 * warning: a missing cache never fails a build.
 */
export async function prepareLocalCaches(
  options: { readonly imports: readonly TypedAttrs[]; readonly exports: readonly TypedAttrs[] },
  warn: (message: string) => void,
): Promise<PreparedCaches> {
  const stores = new Map<string, BlobStore>();
  const written: Export[] = [];
  for (const { type, attrs } of options.exports) {
    if (type === "registry" && !attrs.ref) throw invalid("registry cache exporter requires ref");
    if (type !== "local") continue;
    const dir = attrs.dest;
    if (!dir) throw invalid("local cache exporter requires dest");
    makeDirs(dir);
    stores.set(`local:${dir}`, new DirBlobStore(dir, { writable: true }));
    written.push({
      dir,
      tag: attrs.tag ?? "latest",
      resets: /^(1|t|T|TRUE|true|True)$/.test(attrs.reset ?? ""),
    });
  }
  const imports: TypedAttrs[] = [];
  for (const entry of options.imports) {
    if (entry.type === "registry" && !entry.attrs.ref) throw invalid("registry cache importer requires ref");
    const found = entry.type === "local" ? await findLocal(entry.attrs, warn) : entry;
    if (found === undefined) continue;
    imports.push(found);
    const dir = found.attrs.src ?? "";
    if (entry.type === "local" && !stores.has(`local:${dir}`))
      stores.set(`local:${dir}`, new DirBlobStore(dir));
  }
  return {
    imports,
    exports: options.exports,
    stores,
    finish: (response) => finishExports(written, response, warn),
  };
}

async function findLocal(
  attrs: Readonly<Record<string, string>>,
  warn: (message: string) => void,
): Promise<TypedAttrs | undefined> {
  const dir = attrs.src;
  if (!dir) throw invalid("local cache importer requires src");
  const tag = attrs.tag ?? "latest";
  if (tag === "" && !attrs.digest) {
    throw invalid(
      'local cache importer requires either explicit digest, "latest" tag or custom tag on index.json',
    );
  }
  try {
    const digest = attrs.digest || new OciIndex(dir).find(tag)?.digest;
    if (!digest) {
      warn(`local cache import at ${dir} skipped: no digest found for tag ${tag}`);
      return undefined;
    }
    await new DirBlobStore(dir).info(digest);
    return { type: "local", attrs: { ...attrs, digest } };
  } catch (error) {
    warn(`local cache import at ${dir} skipped due to err: ${errorMessage(error)}`);
    return undefined;
  }
}

async function finishExports(
  exports: readonly Export[],
  response: ReadonlyMap<string, string>,
  warn: (message: string) => void,
): Promise<void> {
  const manifest = response.get("cache.manifest");
  if (manifest === undefined) return;
  const descriptor = JSON.parse(manifest) as { digest: string; size: number };
  for (const { dir, tag } of exports) new OciIndex(dir).put(descriptor, [{ tag }]);
  for (const { dir, resets } of exports) {
    if (!resets) continue;
    try {
      await deleteUnreferenced(dir);
    } catch (error) {
      warn(`failed to reset cache store: ${errorMessage(error)}`);
    }
  }
}

const MAX_MANIFEST_BYTES = 16 << 20;

/** Deletes all blobs that nothing in the directory's index leads to. */
async function deleteUnreferenced(dir: string): Promise<void> {
  const store = new DirBlobStore(dir, { writable: true });
  const referenced = new Set<string>();
  const queue = [...new OciIndex(dir).entries()] as { digest: string; mediaType?: string }[];
  for (let entry = queue.pop(); entry !== undefined; entry = queue.pop()) {
    if (referenced.has(entry.digest)) continue;
    referenced.add(entry.digest);
    if (!/(manifest|index)/.test(entry.mediaType ?? "")) continue;
    const { sizeBytes } = await store.info(entry.digest);
    if (sizeBytes > MAX_MANIFEST_BYTES)
      throw new BuildError("resource_exhausted", `manifest ${entry.digest} is too large`);
    const parts: Uint8Array[] = [];
    for await (const part of store.read(entry.digest, { offset: 0, sizeBytes })) parts.push(part);
    const manifest = JSON.parse(Buffer.concat(parts).toString()) as {
      config?: { digest: string };
      layers?: { digest: string }[];
      manifests?: { digest: string }[];
    };
    queue.push(
      ...(manifest.config ? [manifest.config] : []),
      ...(manifest.layers ?? []),
      ...(manifest.manifests ?? []),
    );
  }
  for await (const { digest } of store.list()) if (!referenced.has(digest)) await store.delete(digest);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
