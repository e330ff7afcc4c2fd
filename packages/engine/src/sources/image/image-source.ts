import { createHash } from "node:crypto";
import type { SourceOp } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type Digest, type Platform, parseDigest } from "@kiln/oci";
import type { BlobProvider, ImmutableRef, RecordType, RefContext, RefManager } from "@kiln/store";
import type { Capture } from "../../attestations/provenance/capture.ts";
import { goJsonText } from "../../cache-digest/go-json.ts";
import { type OpContext, withStatus } from "../../op-context.ts";
import { hostPlatform } from "../../worker/host-platform.ts";
import { showLayers } from "../../worker/layer-progress.ts";
import type { Source, SourceCacheKey, SourceInstance, SourceRequest } from "../source.ts";
import { invalid, layerLimitAttr, recordTypeAttr } from "../source-attrs.ts";
import type { SourceMetadata, SourceMetadataOptions, SourceMetadataResolver } from "../source-metadata.ts";
import { attestationChain } from "./attestation-chain.ts";
import type { DocumentLeases } from "./document-leases.ts";
import { type ImageOrigin, layoutOrigin, type OriginServices, registryOrigin } from "./image-origin.ts";
import { formatReference, parseImageReference, parseLayoutReference } from "./image-reference.ts";
import { type ImageLayer, imageLayers, type PulledImage, pullManifests } from "./pull-manifests.ts";

/** Services of the image sources. */
export interface ImageSourceServices extends OriginServices {
  readonly refs: RefManager;
  readonly documents: DocumentLeases;
}

/** What an identifier and its attributes say. */
interface ImageRequest {
  /** The name with tag and digest. */
  readonly name: string;
  /** From a layout of the client. */
  readonly local: boolean;
  readonly origin: (ids: readonly string[]) => ImageOrigin;
  readonly platform: Platform;
  readonly recordType: RecordType | undefined;
  readonly layerLimit: number | undefined;
  readonly checksum: Digest | undefined;
}

/** Images of registries: `docker-image://`. Layers stay where they are until something needs them. */
export class ImageSource implements Source, SourceMetadataResolver {
  readonly schemes = ["docker-image"];
  readonly #services: ImageSourceServices;

  constructor(services: ImageSourceServices) {
    this.#services = services;
  }

  resolve(request: SourceRequest): SourceInstance {
    return new ImageInstance(
      this.#parse(request.identifier, request.attrs, request.platform),
      this.#services,
    );
  }

  #parse(
    identifier: string,
    attrs: ReadonlyMap<string, string>,
    platform: Platform | undefined,
  ): ImageRequest {
    const ref = parseImageReference(afterScheme(identifier));
    checkResolveMode(attrs.get("image.resolvemode") ?? "default");
    const checksum = attrs.get("image.checksum");
    return {
      name: formatReference(ref),
      local: false,
      origin: (ids) => registryOrigin(ref, ids, this.#services),
      platform: platform ?? hostPlatform(),
      recordType: recordTypeAttr(attrs),
      layerLimit: layerLimitAttr(attrs, "image.layerlimit"),
      checksum: checksum === undefined ? undefined : parseChecksum(checksum),
    };
  }

  async resolveMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    ctx: OpContext,
  ): Promise<SourceMetadata> {
    checkResolveMode(opts.resolveMode === "" ? "default" : opts.resolveMode);
    const request = this.#parse(source.identifier, new Map(Object.entries(source.attrs)), opts.platform);
    return describeImage(source, request, { opts, ctx, services: this.#services });
  }
}

/** Images of OCI layouts on the client: `oci-layout://`. */
export class LayoutSource implements Source, SourceMetadataResolver {
  readonly schemes = ["oci-layout"];
  readonly #services: ImageSourceServices;

  constructor(services: ImageSourceServices) {
    this.#services = services;
  }

  resolve(request: SourceRequest): SourceInstance {
    return new ImageInstance(
      this.#parse(request.identifier, request.attrs, request.platform),
      this.#services,
    );
  }

  #parse(
    identifier: string,
    attrs: ReadonlyMap<string, string>,
    platform: Platform | undefined,
  ): ImageRequest {
    const ref = parseLayoutReference(afterScheme(identifier));
    const session = attrs.get("oci.session") ?? "";
    const storeId = attrs.get("oci.store") ?? "";
    return {
      name: ref.text,
      local: true,
      origin: (ids) => layoutOrigin(ref, { ids: session === "" ? ids : [session], storeId }, this.#services),
      platform: platform ?? hostPlatform(),
      recordType: undefined,
      layerLimit: layerLimitAttr(attrs, "oci.layerlimit"),
      checksum: undefined,
    };
  }

  async resolveMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    ctx: OpContext,
  ): Promise<SourceMetadata> {
    const request = this.#parse(source.identifier, new Map(Object.entries(source.attrs)), opts.platform);
    return describeImage(source, request, { opts, ctx, services: this.#services });
  }
}

async function describeImage(
  source: SourceOp,
  request: ImageRequest,
  at: {
    readonly opts: SourceMetadataOptions;
    readonly ctx: OpContext;
    readonly services: ImageSourceServices;
  },
): Promise<SourceMetadata> {
  const { opts, ctx, services } = at;
  const origin = request.origin(ctx.sessions.ids());
  const wantsChain = opts.image?.attestationChain || (opts.image?.resolveAttestations.length ?? 0) > 0;
  let digest = "";
  let config: Uint8Array = new Uint8Array();
  if (!opts.image?.noConfig) {
    const pulled = await pullManifests(origin, request.platform, services, ctx.signal);
    digest = pulled.main.digest;
    config = pulled.configData;
  }
  const chain = wantsChain
    ? await attestationChain(origin, {
        platform: request.platform,
        predicateTypes: opts.image?.resolveAttestations ?? [],
        content: services.content,
        signal: ctx.signal,
      })
    : undefined;
  if (chain !== undefined) {
    if (digest === "") digest = chain.root;
    else if (digest !== chain.root) {
      throw new BuildError(
        "failed_precondition",
        `attestation chain root digest ${chain.root} does not match image digest ${digest}`,
      );
    }
  }
  return { source, image: { digest, config, ...(chain === undefined ? {} : { attestationChain: chain }) } };
}

class ImageInstance implements SourceInstance {
  readonly #request: ImageRequest;
  readonly #services: ImageSourceServices;
  #pulled: (PulledImage & { readonly layers: readonly ImageLayer[] }) | undefined;

  constructor(request: ImageRequest, services: ImageSourceServices) {
    this.#request = request;
    this.#services = services;
  }

  async cacheKey(_index: number, ctx: OpContext): Promise<SourceCacheKey> {
    const pulled = await this.#pull(ctx);
    const { platform, layerLimit } = this.#request;
    // The diff ids of the config would be a second key, but nobody has verified them before the layers are
    // applied: a malicious image could claim another one's.
    const text = goJsonText({
      Digest: pulled.main.digest,
      OS: platform.os,
      Arch: platform.architecture,
      Variant: platform.variant || undefined,
      OSVersion: platform["os.version"] || undefined,
      OSFeatures: platform["os.features"]?.length ? platform["os.features"] : undefined,
      Limit: layerLimit,
    });
    const key = `sha256:${createHash("sha256").update(text).digest("hex")}`;
    return { key, pin: pulled.main.digest, done: true };
  }

  capture(into: Capture, pin: string): void {
    const { name, local, platform } = this.#request;
    into.addImage({ ref: name, platform, digest: parseDigest(pin), local });
  }

  async snapshot(ctx: OpContext): Promise<ImmutableRef | undefined> {
    const pulled = await this.#pull(ctx);
    const origin = this.#request.origin(ctx.sessions.ids());
    const { repository, name } = origin;
    let current: ImmutableRef | undefined;
    try {
      for (const layer of pulled.layers) {
        const parent: ImmutableRef | undefined = current;
        const next: ImmutableRef = await this.#services.refs.getByBlob(layer.desc, parent, {
          diffId: layer.diffId,
          description: `pulled from ${name}`,
          imageRefs: [name],
          provider: this.#provider(ctx),
          ...(repository === undefined ? {} : { remotes: [repository] }),
        });
        await parent?.release();
        current = next;
      }
      if (current !== undefined) {
        showLayers(this.#services.refs, current.id, ctx);
        await this.#keep(current, pulled, ctx);
      }
      return current;
    } catch (error) {
      await current?.release();
      throw error;
    }
  }

  async #pull(ctx: OpContext): Promise<PulledImage & { readonly layers: readonly ImageLayer[] }> {
    if (this.#pulled !== undefined) return this.#pulled;
    const { checksum, layerLimit, platform } = this.#request;
    const origin = this.#request.origin(ctx.sessions.ids());
    const pulled = await withStatus(ctx.progress, `resolve ${origin.name}`, () =>
      pullManifests(origin, platform, this.#services, ctx.signal),
    );
    if (checksum !== undefined && pulled.main.digest !== checksum) {
      throw new BuildError(
        "failed_precondition",
        `image digest ${pulled.main.digest} for ${origin.name} does not match expected checksum ${checksum}`,
      );
    }
    const layers = imageLayers(pulled);
    if (layerLimit !== undefined && layerLimit > layers.length) {
      throw invalid(
        `layer limit ${layerLimit} is greater than the number of layers in the image ${layers.length}`,
      );
    }
    this.#pulled = { ...pulled, layers: layers.slice(0, layerLimit) };
    return this.#pulled;
  }

  /** Downloads as whoever needs the layer then; as this build when that's nobody in particular. */
  #provider(ctx: OpContext): BlobProvider {
    const { origin } = this.#request;
    const own = ctx.sessions.ids();
    return (desc, at) => Promise.resolve(origin(sessionIdsOf(at) ?? own).fetch(desc, at.signal));
  }

  /** The documents live as long as the image's top layer; its record type is that of its first use. */
  async #keep(ref: ImmutableRef, pulled: PulledImage, ctx: OpContext): Promise<void> {
    const { content, documents } = this.#services;
    if (pulled.documents.some((desc) => !content.has(desc.digest))) {
      this.#pulled = undefined;
      await this.#pull(ctx);
    }
    documents.keep(ref.id, this.#pulled?.documents ?? pulled.documents);
    const { recordType } = this.#request;
    if (recordType === undefined || ref.metadata.getString(RECORD_TYPE_KEY) !== undefined) return;
    ref.metadata.setString(RECORD_TYPE_KEY, recordType);
    ref.setRecordType(recordType);
  }
}

const RECORD_TYPE_KEY = "image.recordtype";

/** Sessions of whoever asks the store for something. */
export function sessionIdsOf(ctx: RefContext): readonly string[] | undefined {
  const group = ctx.session;
  if (typeof group !== "object" || group === null || !("ids" in group) || typeof group.ids !== "function") {
    return undefined;
  }
  const ids: unknown = group.ids();
  return Array.isArray(ids) && ids.length > 0 ? ids : undefined;
}

function afterScheme(identifier: string): string {
  return identifier.slice(identifier.indexOf("://") + 3);
}

function parseChecksum(text: string): Digest {
  try {
    return parseDigest(text);
  } catch (error) {
    throw invalid(`invalid image checksum ${text}: ${error instanceof Error ? error.message : ""}`, error);
  }
}

/** The modes differ only where the engine has images of its own; here all ask the registry. */
function checkResolveMode(mode: string): void {
  if (mode !== "default" && mode !== "pull" && mode !== "local")
    throw invalid(`invalid resolvemode: ${mode}`);
}
