import { TarWriter } from "@kiln/archive";
import { BuildError, isBuildError, wrapError } from "@kiln/base";
import {
  type Descriptor,
  familiarReference,
  formatReference,
  indexJson,
  isIndexType,
  mediaTypes,
  parseIndex,
  parseManifest,
  parseReference,
  withDefaultTag,
} from "@kiln/oci";
import {
  type ContentClient,
  contentOf,
  openFileWriter,
  type RemoteFileWriter,
  type SessionManager,
} from "@kiln/session";
import type { ContentStore } from "@kiln/store";
import { type GoJson, goJsonText } from "../../cache-digest/go-json.ts";
import { type OpContext, withStatus } from "../../op-context.ts";
import type { Exporter, ExportOptions, ExportOutcome, ExportSource } from "../exporter.ts";
import { callerOf } from "../files/local-exporter.ts";
import { boolAttr, resultEpoch } from "../parse-attrs.ts";
import { type CommitOptions, parseCommitOptions } from "./commit-options.ts";
import { goTime } from "./image-config.ts";
import { finalOptions, mergedSource, responseOf } from "./image-response.ts";
import type { ImageWriter, WrittenImage } from "./image-writer.ts";

/** Makes sure that a layer's bytes are in the content store. */
export type EnsureLayer = (descriptor: Descriptor, image: WrittenImage, ctx: OpContext) => Promise<void>;

/** What archive exporters work with. */
export interface ArchiveExporterHost {
  readonly writer: ImageWriter;
  readonly content: ContentStore;
  readonly sessions: SessionManager;
  readonly ensureLayer: EnsureLayer;
}

/** Sends an image as an archive: an OCI layout (`type=oci`) or what `docker load` takes (`type=docker`). */
export function createArchiveExporter(variant: "oci" | "docker", host: ArchiveExporterHost): Exporter {
  return {
    type: variant,
    resolve: (id, attrs) => {
      const { options, rest } = parseCommitOptions(attrs);
      const tarText = rest.get("tar");
      rest.delete("tar");
      const tar = tarText === undefined ? true : boolAttr("tar", tarText);
      return {
        type: variant,
        id,
        name: `exporting to ${variant} image format`,
        attrs,
        export: (source, opts, ctx) =>
          new ArchiveExport(host, { variant, options, rest, tar, id }).run(source, opts, ctx),
      };
    },
  };
}

interface ArchiveAttrs {
  readonly variant: "oci" | "docker";
  readonly options: CommitOptions;
  readonly rest: ReadonlyMap<string, string>;
  readonly tar: boolean;
  readonly id: number;
}

class ArchiveExport {
  readonly #host: ArchiveExporterHost;
  readonly #attrs: ArchiveAttrs;

  constructor(host: ArchiveExporterHost, attrs: ArchiveAttrs) {
    this.#host = host;
    this.#attrs = attrs;
  }

  async run(given: ExportSource, opts: ExportOptions, ctx: OpContext): Promise<ExportOutcome> {
    const { variant, options, rest, tar } = this.#attrs;
    if (variant === "docker" && (given.refs?.size ?? 0) > 0) {
      throw new BuildError(
        "invalid_argument",
        "docker exporter does not currently support exporting manifest lists",
      );
    }
    const source = mergedSource(given, rest);
    const final = finalOptions(options, source, opts, {
      attestationInline: false,
      ociTypes: variant === "oci" ? true : undefined,
    });
    const written = await this.#host.writer.commit(source, final, opts, ctx);
    const epoch = final.epoch === undefined ? resultEpoch(source.metadata, undefined) : final.epoch;
    const created = goTime(Math.floor(epoch ?? Date.now() / 1000) * 1000);
    const image: WrittenImage = {
      ...written,
      descriptor: {
        ...written.descriptor,
        annotations: { [mediaTypesCreated]: created, ...written.descriptor.annotations },
      },
    };
    const names = normalizedNames(final.name);
    const response = responseOf(image, names.join(","));
    const caller = await callerOf(this.#host.sessions, opts, ctx);
    const blobs = await this.#collect(image, ctx);
    if (tar) {
      await withStatus(ctx.progress, "sending tarball", async () => {
        const target = {
          exporterId: this.#attrs.id,
          metadata: Object.fromEntries(response),
          signal: ctx.signal,
        };
        try {
          await using file = await openFileWriter(caller, target);
          await this.#writeTar(file, { image, names, blobs });
          await file.close();
        } catch (error) {
          // the client has the file already
          if (!isBuildError(error, "already_exists")) throw error;
        }
      });
    } else {
      const store = contentOf(caller, "export");
      for (const blob of blobs) {
        await sendBlob(store, blob, this.#host.content.read(blob.digest), ctx.signal);
      }
    }
    return { response, descriptor: image.descriptor };
  }

  /** Every blob of the image, each once: layers and configs before the manifests that name them. */
  async #collect(image: WrittenImage, ctx: OpContext): Promise<Descriptor[]> {
    const { content } = this.#host;
    const found = new Map<string, Descriptor>();
    const visit = async (descriptor: Descriptor): Promise<void> => {
      if (found.has(descriptor.digest)) return;
      const bytes = await content.readAll(descriptor.digest);
      if (isIndexType(descriptor.mediaType)) {
        for (const child of parseIndex(bytes, descriptor.mediaType).manifests) await visit(child);
      } else {
        const manifest = parseManifest(bytes, descriptor.mediaType);
        for (const layer of manifest.layers) {
          if (!content.has(layer.digest)) await this.#host.ensureLayer(layer, image, ctx);
          found.set(layer.digest, layer);
        }
        found.set(manifest.config.digest, manifest.config);
      }
      found.set(descriptor.digest, descriptor);
    };
    await visit(image.descriptor);
    return [...found.values()];
  }

  async #writeTar(
    file: RemoteFileWriter,
    at: {
      readonly image: WrittenImage;
      readonly names: readonly string[];
      readonly blobs: readonly Descriptor[];
    },
  ): Promise<void> {
    const writer = new TarWriter((chunk) => file.write(chunk));
    const text = (name: string, content: string): Promise<void> =>
      writer.entry({ name, mode: name === "oci-layout" ? 0o444 : 0o644 }, Buffer.from(content));
    await writer.entry({ name: "blobs/", type: "dir", mode: 0o755 });
    await writer.entry({ name: "blobs/sha256/", type: "dir", mode: 0o755 });
    const sorted = [...at.blobs].sort((a, b) => (a.digest < b.digest ? -1 : 1));
    for (const blob of sorted) {
      const name = `blobs/sha256/${blob.digest.slice("sha256:".length)}`;
      await writer.entry({ name, mode: 0o444, size: blob.size }, this.#host.content.read(blob.digest));
    }
    await text("index.json", this.#index(at.image, at.names));
    if (this.#attrs.variant === "docker") {
      const dockerManifest = await this.#dockerManifest(at.image, at.names);
      if (dockerManifest !== undefined) await text("manifest.json", dockerManifest);
    }
    await text("oci-layout", goJsonText({ imageLayoutVersion: "1.0.0" }));
    await writer.finish();
  }

  #index(image: WrittenImage, names: readonly string[]): string {
    const named = names.length === 0 ? [undefined] : names;
    const manifests = named.map((name) =>
      name === undefined
        ? image.descriptor
        : {
            ...image.descriptor,
            annotations: {
              ...image.descriptor.annotations,
              "io.containerd.image.name": name,
              "org.opencontainers.image.ref.name": tagOf(name),
            },
          },
    );
    return goJsonText(indexJson({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }) as GoJson);
  }

  /** `manifest.json`, for engines that read that; an index gives that of its first image. */
  async #dockerManifest(image: WrittenImage, names: readonly string[]): Promise<string | undefined> {
    const { content } = this.#host;
    let descriptor = image.descriptor;
    if (isIndexType(descriptor.mediaType)) {
      const index = parseIndex(await content.readAll(descriptor.digest), descriptor.mediaType);
      const first = index.manifests.find((child) => child.platform?.os !== "unknown");
      if (first === undefined) return undefined;
      descriptor = first;
    }
    const manifest = parseManifest(await content.readAll(descriptor.digest), descriptor.mediaType);
    const path = (digest: string): string => `blobs/sha256/${digest.slice("sha256:".length)}`;
    const tags = names.map((name) => familiarReference(parseReference(name)));
    return goJsonText([
      {
        Config: path(manifest.config.digest),
        RepoTags: tags.length === 0 ? null : tags,
        Layers: manifest.layers.map((layer) => path(layer.digest)),
      },
    ]);
  }
}

async function sendBlob(
  store: ContentClient,
  blob: Descriptor,
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  try {
    const expected = { digest: blob.digest, sizeBytes: blob.size, signal };
    await store.write(`upload-${blob.digest}`, bytes, expected);
  } catch (error) {
    if (!isBuildError(error, "already_exists")) throw error;
  }
}

const mediaTypesCreated = "org.opencontainers.image.created";

function normalizedNames(name: string): string[] {
  if (name === "") return [];
  return name.split(",").map((one) => {
    try {
      return formatReference(withDefaultTag(parseReference(one)));
    } catch (error) {
      throw wrapError(error, `failed to parse ${one}`);
    }
  });
}

function tagOf(name: string): string {
  const ref = parseReference(name);
  return ref.tag ?? name;
}
