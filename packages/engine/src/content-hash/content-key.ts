import { createHash } from "node:crypto";
import { posix } from "node:path";
import { BuildError, wrapError } from "@kiln/base";
import { localMount } from "@kiln/sys";
import type { OpContext, OpResult } from "../op-context.ts";
import type { ChecksumOptions } from "./checksum.ts";
import type { ContentHasher } from "./content-hasher.ts";

/** A part of an input that an op looks at. */
export interface ContentSelector extends ChecksumOptions {
  readonly path: string;
}

/** A selector of one path, links followed or not. */
export function plainSelector(path: string, followLinks = false): ContentSelector {
  return { path, followLinks, wildcard: false, includePatterns: [], excludePatterns: [], requiredPaths: [] };
}

/** True when a selector covers a list of files rather than one path. */
export function isFiltered(selector: ContentSelector): boolean {
  return selector.wildcard || selector.includePatterns.length > 0 || selector.excludePatterns.length > 0;
}

/**
 * The content-based cache key of an input: the digests of what the selectors cover, joined by NUL, hashed.
 * No selector means the whole tree.
 */
export async function contentKeyOf(
  hasher: ContentHasher,
  input: OpResult,
  selectors: readonly ContentSelector[],
  ctx: OpContext,
): Promise<string> {
  const all = selectors.length === 0 ? [plainSelector("")] : selectors;
  const digests: string[] = [];
  const { ref } = input;
  if (ref === undefined) {
    for (const selector of all) digests.push(emptyTreeDigest(rooted(selector.path)));
  } else {
    await using mountable = await ref.mount(true, {
      signal: ctx.signal,
      session: ctx.sessions,
    });
    using dir = localMount(mountable.mounts);
    try {
      for (const selector of all) {
        digests.push(await hasher.checksum(ref.id, dir.path, rooted(selector.path), selector));
      }
    } catch (error) {
      throw wrapError(error, `failed to calculate checksum of ref ${ref.id}`);
    }
  }
  return `sha256:${createHash("sha256").update(digests.join("\0")).digest("hex")}`;
}

/** Go's `path.Join("/", p)`, which loses a slash at the end. */
function rooted(path: string): string {
  const clean = posix.join("/", path);
  return clean.length > 1 && clean.endsWith("/") ? clean.slice(0, -1) : clean;
}

function emptyTreeDigest(path: string): string {
  if (path !== "/") throw new BuildError("not_found", `${path}: no such file or directory`);
  return `sha256:${createHash("sha256").digest("hex")}`;
}
