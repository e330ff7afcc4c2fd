import { createHash } from "node:crypto";
import { BuildError, wrapError } from "@kiln/base";
import { type Descriptor, type Digest, digestHex, mediaTypes, type Reference } from "@kiln/oci";
import type { ImmutableRef, RefManager } from "@kiln/store";
import type { Capture } from "../../attestations/provenance/capture.ts";
import { goJsonText } from "../../cache-digest/go-json.ts";
import type { OpContext } from "../../op-context.ts";
import { createTree, writeFileInto } from "../file-ref.ts";
import type { Source, SourceCacheKey, SourceInstance, SourceRequest } from "../source.ts";
import { type FileAttrs, fileAttrs, invalid, recordTypeAttr, safeFileName } from "../source-attrs.ts";
import { type OriginServices, verified } from "./image-origin.ts";
import { parseImageReference, parseLayoutReference } from "./image-reference.ts";

/** Where one blob comes from. */
export interface BlobLocator {
  /** As in the identifier, without scheme. */
  readonly text: string;
  readonly digest: Digest;
  readonly from:
    | { readonly kind: "registry"; readonly ref: Reference }
    | { readonly kind: "layout"; readonly sessionId: string; readonly storeId: string };
}

/** Reads `docker-image+blob://…` or `oci-layout+blob://…`. */
export function parseBlobLocator(identifier: string, attrs: ReadonlyMap<string, string>): BlobLocator {
  const at = identifier.indexOf("://");
  const scheme = identifier.slice(0, Math.max(at, 0));
  const text = identifier.slice(at + 3);
  if (scheme === "docker-image+blob") {
    const ref = parseImageReference(text);
    if (ref.digest === undefined) throw invalid("invalid reference digest: invalid checksum digest format");
    return { text, digest: ref.digest, from: { kind: "registry", ref } };
  }
  const ref = parseLayoutReference(text);
  const storeId = attrs.get("oci.store") ?? "";
  if (storeId === "") throw invalid("oci-layout blob source requires store id");
  if (ref.digest === undefined) throw invalid("invalid reference digest: invalid checksum digest format");
  const sessionId = attrs.get("oci.session") ?? "";
  return { text, digest: ref.digest, from: { kind: "layout", sessionId, storeId } };
}

/** The bytes of a blob, verified. Its size isn't known beforehand: the server says it. */
export async function openBlob(
  locator: BlobLocator,
  services: OriginServices,
  at: { readonly ids: readonly string[]; readonly signal: AbortSignal },
): Promise<AsyncIterable<Uint8Array>> {
  const { digest, from } = locator;
  if (from.kind === "layout") {
    const ids = from.sessionId === "" ? at.ids : [from.sessionId];
    const content = await services.sessions.content(ids, from.storeId, at.signal);
    const size = await content.size(digest, at.signal);
    return verified({ mediaType: mediaTypes.octetStream, digest, size }, content.read(digest, at.signal));
  }
  const client = services.registries.client(services.authenticators.of(at.ids));
  const size = await client.blobSize(from.ref, digest, { signal: at.signal });
  const desc: Descriptor = { mediaType: mediaTypes.octetStream, digest, size };
  return client.fetchBlob(from.ref, desc, { signal: at.signal });
}

/** One blob of a registry or of a client's layout as a file: `docker-image+blob://`, `oci-layout+blob://`. */
export class BlobSource implements Source {
  readonly schemes = ["docker-image+blob", "oci-layout+blob"];
  readonly #services: OriginServices & { readonly refs: RefManager };

  constructor(services: OriginServices & { readonly refs: RefManager }) {
    this.#services = services;
  }

  resolve(request: SourceRequest): SourceInstance {
    recordTypeAttr(request.attrs);
    const locator = parseBlobLocator(request.identifier, request.attrs);
    const file = fileAttrs(request.attrs);
    const filename = request.attrs.has("http.filename") ? safeFileName(file.filename) : "";
    return new BlobInstance(locator, { ...file, filename }, this.#services);
  }
}

class BlobInstance implements SourceInstance {
  readonly #locator: BlobLocator;
  readonly #file: FileAttrs;
  readonly #services: OriginServices & { readonly refs: RefManager };

  constructor(
    locator: BlobLocator,
    file: FileAttrs,
    services: OriginServices & { readonly refs: RefManager },
  ) {
    this.#locator = locator;
    this.#file = file;
    this.#services = services;
  }

  cacheKey(): Promise<SourceCacheKey> {
    const text = goJsonText({
      Version: "v1",
      Digest: this.#locator.digest,
      Filename: this.#file.filename,
      Perm: this.#file.perm,
      UID: this.#file.uid,
      GID: this.#file.gid,
    });
    const key = `sha256:${createHash("sha256").update(text).digest("hex")}`;
    return Promise.resolve({ key, pin: this.#locator.digest, done: true });
  }

  capture(into: Capture, pin: string): void {
    const { digest, text, from } = this.#locator;
    if (pin !== digest) {
      throw new BuildError("data_loss", `invalid image blob reference: digest mismatch ${pin} != ${digest}`);
    }
    into.addBlob({ ref: text, digest, local: from.kind === "layout" });
  }

  async snapshot(ctx: OpContext): Promise<ImmutableRef> {
    const { digest, text } = this.#locator;
    const { refs } = this.#services;
    const source = await openBlob(this.#locator, this.#services, {
      ids: ctx.sessions.ids(),
      signal: ctx.signal,
    });
    const name = this.#file.filename === "" ? digestHex(digest) : this.#file.filename;
    const opts = { description: `blob ${text}`, cachePolicy: "retain" } as const;
    try {
      const { ref } = await createTree(refs, opts, ctx, (dir) =>
        writeFileInto(dir, { ...this.#file, name, mtimeMs: 0 }, source),
      );
      return ref;
    } catch (error) {
      if (!(error instanceof BuildError) || error.code !== "data_loss") throw error;
      throw wrapError(error, `blob digest mismatch: expected ${digest}`);
    }
  }
}
