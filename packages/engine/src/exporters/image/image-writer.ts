import { createHash } from "node:crypto";
import type { LayerPool } from "@kiln/archive";
import { BuildError } from "@kiln/base";
import {
  type Annotations as AnnotationRecord,
  type Descriptor,
  type Digest,
  indexJson,
  type Manifest,
  manifestJson,
  mediaTypes,
  type Platform,
} from "@kiln/oci";
import type { ContentStore, ImmutableRef, Remote } from "@kiln/store";
import { type GoJson, goJsonText } from "../../cache-digest/go-json.ts";
import { type OpContext, withStatus } from "../../op-context.ts";
import type { Attestation } from "../../solve/build-results.ts";
import {
  IMAGE_CONFIG_KEY,
  PLATFORMS_KEY,
  type ResultPlatform,
  resultPlatforms,
} from "../../solve/result-platforms.ts";
import type { ExportOptions, ExportSource } from "../exporter.ts";
import { resultEpoch } from "../parse-attrs.ts";
import type { Annotations } from "./annotations.ts";
import { attestationStatements } from "./attestation-statements.ts";
import type { CommitOptions } from "./commit-options.ts";
import {
  attestationConfig,
  defaultImageConfig,
  fitHistory,
  historyOf,
  patchImageConfig,
} from "./image-config.ts";
import { removeInternalAnnotations, toMediaTypes } from "./layer-types.ts";
import { rewriteLayers } from "./rewrite-layers.ts";

/** Options with every default decided. */
export type FinalCommitOptions = Omit<CommitOptions, "ociTypes" | "ociArtifact" | "attestationInline"> & {
  readonly ociTypes: boolean;
  readonly ociArtifact: boolean;
  readonly attestationInline: boolean;
};

/** What an image writer works with. */
export interface ImageWriterHost {
  readonly content: ContentStore;
  readonly layers: LayerPool;
}

/** What was written. */
export interface WrittenImage {
  readonly descriptor: Descriptor;
  /** Digest of the config of an image that stands alone. */
  readonly configDigest: string | undefined;
  /** Every layer that the image names, with where lazy ones can be had. */
  readonly layers: readonly Remote[];
}

const BASE_CONFIG_KEY = "containerimage.base.config";
const ATTESTATION_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY_JSON_TYPE = "application/vnd.oci.empty.v1+json";
const UNKNOWN_PLATFORM: Platform = { architecture: "unknown", os: "unknown" };

interface PlatformImage {
  readonly platform: ResultPlatform;
  readonly ref: ImmutableRef | undefined;
  readonly remote: Remote;
  /** Digests of the layers before their timestamps were rewritten: what cache records know. */
  readonly cachedLayers: readonly string[];
}

/**
 * Writes images into the content store: layers, configs, manifests, attestations and indexes, byte for byte
 * as BuildKit lays them out (buildkit.md §6.4, §6.6).
 */
export class ImageWriter {
  readonly #host: ImageWriterHost;

  constructor(host: ImageWriterHost) {
    this.#host = host;
  }

  /** @throws BuildError `invalid_argument` for a result that can't be an image. */
  async commit(
    source: ExportSource,
    options: FinalCommitOptions,
    exportOptions: ExportOptions,
    ctx: OpContext,
  ): Promise<WrittenImage> {
    if ((source.refs?.size ?? 0) > 0 && !source.metadata.has(PLATFORMS_KEY)) {
      throw invalid("unable to export multiple refs, missing platforms mapping");
    }
    const platforms = resultPlatforms(source.metadata);
    this.#checkAnnotations(source, options);
    const run = new CommitRun(this.#host, { source, options, exportOptions, ctx });
    const isIndex = (source.refs?.size ?? 0) > 0 || platforms.some((p) => run.needsIndex(p.id));
    if (!isIndex && platforms.length > 1) {
      throw invalid("cannot export multiple platforms without multi-platform enabled");
    }
    return isIndex ? await run.index(platforms) : await run.single(platforms[0] as ResultPlatform);
  }

  #checkAnnotations(source: ExportSource, options: FinalCommitOptions): void {
    for (const named of options.annotations.platforms()) {
      if (source.refs !== undefined && source.refs.size > 1 && !source.refs.has(named)) {
        throw invalid(`invalid annotation: no platform ${named} found in source`);
      }
    }
    if (!options.ociTypes && options.annotations.needsOciTypes) {
      throw invalid('cannot export annotations with "oci-mediatypes=false"');
    }
  }
}

class CommitRun {
  readonly #host: ImageWriterHost;
  readonly #source: ExportSource;
  readonly #options: FinalCommitOptions;
  readonly #export: ExportOptions;
  readonly #ctx: OpContext;

  constructor(
    host: ImageWriterHost,
    at: {
      readonly source: ExportSource;
      readonly options: FinalCommitOptions;
      readonly exportOptions: ExportOptions;
      readonly ctx: OpContext;
    },
  ) {
    this.#host = host;
    this.#source = at.source;
    this.#options = at.options;
    this.#export = at.exportOptions;
    this.#ctx = at.ctx;
  }

  /**
   * True when a platform has attestations that call for an index. Those that are for images only don't in an archive,
   * but an index that is there for other reasons has them too.
   */
  needsIndex(id: string): boolean {
    const all = this.#attestationsOf(id);
    if (this.#options.attestationInline) return all.length > 0;
    return all.some((item) => new TextDecoder().decode(item.metadata.get("inline-only")) !== "true");
  }

  #attestationsOf(id: string): readonly Attestation<ImmutableRef>[] {
    return this.#source.attestations.get(id) ?? [];
  }

  async single(platform: ResultPlatform): Promise<WrittenImage> {
    const annotations = this.#options.annotations.for(undefined);
    if (annotations.index.size > 0 || annotations["index-descriptor"].size > 0) {
      throw invalid("index annotations not supported for single platform export");
    }
    const [image] = await this.#layers([platform]);
    const written = await this.#manifest(image as PlatformImage, annotations);
    return {
      descriptor: { ...written.descriptor, platform: platform.platform },
      configDigest: written.configDigest,
      layers: [(image as PlatformImage).remote],
    };
  }

  async index(platforms: readonly ResultPlatform[]): Promise<WrittenImage> {
    const options = this.#options;
    if (!options.ociTypes && this.#source.attestations.size > 0) {
      throw invalid('cannot export attestations with "oci-mediatypes=false"');
    }
    const images = await this.#layers(platforms);
    const manifests: Descriptor[] = [];
    const attestations: Descriptor[] = [];
    for (const image of images) {
      const { descriptor } = await this.#manifest(image, options.annotations.for(image.platform.platform));
      const named = { ...descriptor, platform: image.platform.platform };
      manifests.push(named);
      const attested = await this.#attest(image, descriptor);
      if (attested !== undefined) attestations.push(attested);
    }
    const top = options.annotations.for(undefined);
    const mediaType = options.ociTypes ? mediaTypes.ociIndex : mediaTypes.dockerManifestList;
    const text = indented(
      indexJson({
        schemaVersion: 2,
        mediaType,
        manifests: [...manifests, ...attestations],
        ...record(top.index, "annotations"),
      }) as GoJson,
    );
    const descriptor = await this.#write("exporting manifest list", text, mediaType);
    return {
      descriptor: { ...descriptor, ...record(top["index-descriptor"], "annotations") },
      configDigest: undefined,
      layers: images.map((image) => image.remote),
    };
  }

  async #layers(platforms: readonly ResultPlatform[]): Promise<PlatformImage[]> {
    const { compression, ociTypes, preferNonDistributable, rewriteTimestamp } = this.#options;
    const ctx = this.#ctx;
    const images = await withStatus(ctx.progress, "exporting layers", () =>
      Promise.all(
        platforms.map(async (platform): Promise<PlatformImage> => {
          const ref = this.#ref(platform.id);
          const remote = await ref?.toRemote({
            compression: { ...compression, ociTypes },
            preferNondistributable: preferNonDistributable,
            ctx: { signal: ctx.signal, session: ctx.sessions },
          });
          const cachedLayers = remote?.descriptors.map((layer) => layer.digest) ?? [];
          return { platform, ref, remote: remote ?? { descriptors: [], layers: [] }, cachedLayers };
        }),
      ),
    );
    if (!rewriteTimestamp) return images;
    const rewritten: PlatformImage[] = [];
    for (const image of images) {
      const epoch = this.#epoch(image.platform.id);
      const remote = await rewriteLayers(image.remote, {
        content: this.#host.content,
        layers: this.#host.layers,
        epoch,
        baseDiffIds: diffIdsOf(this.#metadata(BASE_CONFIG_KEY, image.platform.id)),
        compression,
        ctx,
      });
      rewritten.push({ ...image, remote });
    }
    return rewritten;
  }

  #ref(id: string): ImmutableRef | undefined {
    const { refs, ref } = this.#source;
    if (refs === undefined || refs.size === 0) return ref;
    if (!refs.has(id)) throw invalid(`failed to find ref for ID ${id}`);
    return refs.get(id);
  }

  #metadata(key: string, id: string): string | undefined {
    const value = this.#source.metadata.get(`${key}/${id}`) ?? this.#source.metadata.get(key);
    return value === undefined || value.length === 0 ? undefined : new TextDecoder().decode(value);
  }

  #epoch(id: string): number | undefined {
    const { epoch } = this.#options;
    if (epoch !== undefined) return epoch ?? undefined;
    return resultEpoch(this.#source.metadata, id);
  }

  async #manifest(
    image: PlatformImage,
    annotations: Annotations,
  ): Promise<{ descriptor: Descriptor; configDigest: string }> {
    const { ociTypes } = this.#options;
    const descriptors = toMediaTypes(image.remote.descriptors, ociTypes);
    const config = this.#config(image);
    const finalConfig = patchImageConfig(config, {
      diffIds: image.remote.layers.map((layer) => layer.diffId),
      history: fitHistory(historyOf(config), image.remote.layers),
      inlineCache: await this.#export.inlineCache?.(
        image.ref,
        { digests: image.cachedLayers, compression: this.#options.compression },
        this.#ctx,
      ),
      epoch: this.#epoch(image.platform.id),
      baseHistory: historyOf(this.#metadata(BASE_CONFIG_KEY, image.platform.id) ?? "{}"),
    });
    const configBytes = Buffer.from(finalConfig);
    const manifestType = ociTypes ? mediaTypes.ociManifest : mediaTypes.dockerManifest;
    const configType = ociTypes ? mediaTypes.ociConfig : mediaTypes.dockerConfig;
    const manifest: Manifest = {
      schemaVersion: 2,
      mediaType: manifestType,
      config: { mediaType: configType, digest: digestOf(configBytes), size: configBytes.length },
      layers: descriptors.map((layer) => removeInternalAnnotations(layer, ociTypes)),
      ...record(annotations.manifest, "annotations"),
    };
    const json = manifestJson(manifest) as { readonly [key: string]: GoJson };
    // Go writes a list that was never made as null
    const text = indented(manifest.layers.length === 0 ? { ...json, layers: null } : json);
    const descriptor = await this.#write("exporting manifest", text, manifestType);
    await this.#write("exporting config", configBytes, configType);
    return {
      descriptor: { ...descriptor, ...record(annotations["manifest-descriptor"], "annotations") },
      configDigest: manifest.config.digest,
    };
  }

  #config(image: PlatformImage): string {
    return this.#metadata(IMAGE_CONFIG_KEY, image.platform.id) ?? defaultImageConfig();
  }

  async #attest(image: PlatformImage, target: Descriptor): Promise<Descriptor | undefined> {
    const wanted = this.#attestationsOf(image.platform.id);
    if (wanted.length === 0) return undefined;
    const statements = await attestationStatements(wanted, {
      imageNames: this.#options.name === "" ? [] : this.#options.name.split(","),
      platform: image.platform.platform,
      target,
      ref: image.ref,
      remote: image.remote,
      ctx: this.#ctx,
    });
    return await this.#attestationManifest(target, statements);
  }

  async #attestationManifest(
    target: Descriptor,
    statements: readonly { readonly predicateType: string; readonly text: string }[],
  ): Promise<Descriptor> {
    const { ociTypes, ociArtifact } = this.#options;
    const layers: Descriptor[] = [];
    for (const { predicateType, text } of statements) {
      const bytes = Buffer.from(text);
      const written = await this.#put(bytes, "application/vnd.in-toto+json");
      layers.push({ ...written, annotations: { "in-toto.io/predicate-type": predicateType } });
    }
    const config = Buffer.from(ociArtifact ? "{}" : attestationConfig(layers.map((layer) => layer.digest)));
    const configType = ociTypes ? mediaTypes.ociConfig : mediaTypes.dockerConfig;
    const manifestType = ociTypes ? mediaTypes.ociManifest : mediaTypes.dockerManifest;
    const manifest: Manifest = {
      schemaVersion: 2,
      mediaType: manifestType,
      config: {
        mediaType: ociArtifact ? EMPTY_JSON_TYPE : configType,
        digest: digestOf(config),
        size: config.length,
        ...(ociArtifact ? { data: config.toString("base64") } : {}),
      },
      layers,
      ...(ociArtifact
        ? {
            artifactType: ATTESTATION_ARTIFACT,
            subject: { mediaType: target.mediaType, digest: target.digest, size: target.size },
          }
        : {}),
    };
    const descriptor = await this.#write(
      "exporting attestation manifest",
      indented(manifestJson(manifest) as GoJson),
      manifestType,
    );
    await this.#put(config, manifest.config.mediaType);
    return {
      ...descriptor,
      annotations: {
        "vnd.docker.reference.digest": target.digest,
        "vnd.docker.reference.type": "attestation-manifest",
      },
      platform: UNKNOWN_PLATFORM,
    };
  }

  async #write(action: string, data: Uint8Array, mediaType: string): Promise<Descriptor> {
    return await withStatus(this.#ctx.progress, `${action} ${digestOf(data)}`, () =>
      this.#put(data, mediaType),
    );
  }

  async #put(data: Uint8Array, mediaType: string): Promise<Descriptor> {
    const digest = digestOf(data);
    await this.#host.content.write(data, { digest, sizeBytes: data.length });
    return { mediaType, digest, size: data.length };
  }
}

function digestOf(data: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(data).digest("hex")}` as Digest;
}

/** Go's `json.MarshalIndent` with two spaces. */
export function indented(value: GoJson): Uint8Array {
  const text = JSON.stringify(JSON.parse(goJsonText(value)), undefined, 2);
  return Buffer.from(
    text.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );
}

function record<K extends string>(
  map: ReadonlyMap<string, string>,
  key: K,
): { readonly [P in K]?: AnnotationRecord } {
  if (map.size === 0) return {};
  return { [key]: Object.assign(Object.create(null), Object.fromEntries(map)) } as {
    readonly [P in K]?: AnnotationRecord;
  };
}

function diffIdsOf(config: string | undefined): readonly string[] {
  if (config === undefined) return [];
  const parsed = JSON.parse(config) as { rootfs?: { diff_ids?: unknown } } | null;
  const ids = parsed?.rootfs?.diff_ids;
  return Array.isArray(ids) ? ids.map(String) : [];
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
