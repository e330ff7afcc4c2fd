import { createHash } from "node:crypto";
import { BuildError, errorMessage, wrapError } from "@kiln/base";
import {
  annotationKeys,
  type Descriptor,
  type Digest,
  detectManifestType,
  digestAlgorithm,
  formatReference,
  MAX_MANIFEST_BYTES,
  type Reference,
} from "@kiln/oci";
import type { Registries, RegistryClient } from "@kiln/registry";
import type { ContentStore } from "@kiln/store";
import { invalid } from "../source-attrs.ts";
import type { SessionAuthenticators, SessionContent, SourceSessions } from "../source-sessions.ts";
import { type LayoutReference, repositoryOf } from "./image-reference.ts";

/** Where the parts of one image come from, on behalf of some sessions. */
export interface ImageOrigin {
  /** As it is shown. */
  readonly name: string;
  /** `domain/path` of a registry; undefined for a client's layout. */
  readonly repository: string | undefined;
  resolve(signal: AbortSignal): Promise<Descriptor>;
  /** Bytes of a blob or manifest, verified. */
  fetch(desc: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Manifests that refer to a digest; none where there's no way to ask. */
  referrers(digest: Digest, signal: AbortSignal): Promise<readonly Descriptor[]>;
}

/** Services that origins are made from. */
export interface OriginServices {
  readonly registries: Registries;
  readonly authenticators: SessionAuthenticators;
  readonly sessions: SourceSessions;
  readonly content: ContentStore;
}

/** An image in a registry. With a digest in its name, the content store answers when it may. */
export function registryOrigin(
  ref: Reference,
  ids: readonly string[],
  services: OriginServices,
): ImageOrigin {
  const client: RegistryClient = services.registries.client(services.authenticators.of(ids));
  return {
    name: formatReference(ref),
    repository: repositoryOf(ref),
    resolve: async (signal) =>
      (await resolveLocally(ref, services.content)) ?? client.resolve(ref, { signal }),
    fetch: (desc, signal) => client.fetchBlob(ref, desc, { signal }),
    referrers: (digest, signal) => client.referrers(ref, digest, { signal }),
  };
}

/** A manifest that was pulled from the same repository before needn't be asked for again. */
async function resolveLocally(ref: Reference, content: ContentStore): Promise<Descriptor | undefined> {
  if (ref.digest === undefined || !content.has(ref.digest)) return undefined;
  const { labels, sizeBytes } = content.info(ref.digest);
  const sources = labels.get(annotationKeys.distributionSourcePrefix + ref.domain)?.split(",") ?? [];
  if (!sources.includes(ref.path) || sizeBytes > MAX_MANIFEST_BYTES) return undefined;
  try {
    const data = await content.readAll(ref.digest, MAX_MANIFEST_BYTES);
    return { mediaType: detectManifestType(data), digest: ref.digest, size: sizeBytes };
  } catch {
    // What can't be read is asked for again.
    return undefined;
  }
}

/** An image in an OCI layout that a client serves over its session. */
export function layoutOrigin(
  ref: LayoutReference,
  at: { readonly ids: readonly string[]; readonly storeId: string },
  services: OriginServices,
): ImageOrigin {
  const open = (signal: AbortSignal): Promise<SessionContent> =>
    services.sessions.content(at.ids, at.storeId, signal);
  return {
    name: ref.text,
    repository: undefined,
    async resolve(signal) {
      const { digest } = ref;
      if (digest === undefined) throw invalid(`reference ${JSON.stringify(ref.text)} must have digest`);
      const content = await open(signal);
      let size: number;
      try {
        size = await content.size(digest, signal);
      } catch (error) {
        throw wrapError(error, "unable to get info about digest");
      }
      if (size > MAX_MANIFEST_BYTES) {
        throw new BuildError(
          "resource_exhausted",
          `manifest ${digest} has ${size} bytes, more than ${MAX_MANIFEST_BYTES}`,
        );
      }
      const chunks: Uint8Array[] = [];
      for await (const chunk of verified({ digest, size, mediaType: "" }, content.read(digest, signal)))
        chunks.push(chunk);
      try {
        return { mediaType: detectManifestType(Buffer.concat(chunks)), digest, size };
      } catch (error) {
        throw invalid(
          `reference ${JSON.stringify(ref.text)} contains neither an index nor a manifest: ${errorMessage(error)}`,
          error,
        );
      }
    },
    async *fetch(desc, signal) {
      const content = await open(signal);
      yield* verified(desc, content.read(desc.digest, signal));
    },
    referrers: () => Promise.resolve([]),
  };
}

/** Passes bytes on and throws `data_loss` at the end unless size and digest are right; never passes on more. */
export async function* verified(
  desc: Descriptor,
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const hash = createHash(digestAlgorithm(desc.digest));
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > desc.size) break;
    hash.update(chunk);
    yield chunk;
  }
  if (size !== desc.size) {
    throw new BuildError("data_loss", `failed size validation: ${size} != ${desc.size}: failed precondition`);
  }
  const digest = `${digestAlgorithm(desc.digest)}:${hash.digest("hex")}`;
  if (digest !== desc.digest) {
    throw new BuildError(
      "data_loss",
      `unexpected commit digest ${digest}, expected ${desc.digest}: failed precondition`,
    );
  }
}
