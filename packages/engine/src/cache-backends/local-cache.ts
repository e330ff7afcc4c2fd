import { BuildError, isBuildError } from "@kiln/base";
import { type Descriptor, type Digest, digestProblem } from "@kiln/oci";
import { type ContentClient, contentOf } from "@kiln/session";
import type { CacheBlob } from "@kiln/solver/remote-cache";
import type { OpContext } from "../op-context.ts";
import { type CacheAttrs, invalid, readAttrs, textAttr } from "./cache-attrs.ts";
import type { CacheBackend, CacheBackendHost } from "./cache-backend.ts";
import { asDescriptor } from "./cache-blobs.ts";
import { type BlobReader, LayerProvider } from "./layer-provider.ts";
import { type ManifestTarget, manifestFormat, writeManifestCache } from "./manifest-format.ts";
import { importManifest } from "./manifest-import.ts";

const EXPORT = { dest: textAttr("") };
const IMPORT = { src: textAttr(""), digest: textAttr("") };
const FIND_TIMEOUT_MS = 5_000;

/** Caches in directories of clients, read and written over the session. The client keeps `index.json`. */
export function localCache(host: CacheBackendHost): CacheBackend {
  return {
    exportName: "exporting cache to client directory",
    exporter: (attrs) => {
      const { dest } = readAttrs(attrs, EXPORT);
      if (dest === "") throw invalid("local cache exporter requires dest");
      const format = manifestFormat(attrs);
      return {
        compression: format.compression,
        send: async (cache, ctx) => {
          const store = await openStore(host, dest, ctx.sessions.ids(), ctx.signal);
          return await writeManifestCache(cache, format, new DirectoryTarget(host, store), ctx);
        },
      };
    },
    importer: (attrs) => {
      const { src, digest } = sourceOf(attrs);
      return {
        open: async (ctx) => {
          const ids = ctx.sessions.ids();
          const { sizeBytes } = await (await openStore(host, src, ids, ctx.signal)).info(digest, ctx.signal);
          const top: Descriptor = { mediaType: "", digest, size: sizeBytes };
          const provider = new DirectoryLayers(host, src, ids);
          return { read: (chains) => importManifest(top, { provider, chains, ctx }) };
        },
      };
    },
  };
}

function sourceOf(attrs: CacheAttrs): { readonly src: string; readonly digest: Digest } {
  const { src, digest } = readAttrs(attrs, IMPORT);
  if (digest === "") throw invalid("local cache importer requires explicit digest");
  if (src === "") throw invalid("local cache importer requires src");
  const problem = digestProblem(digest);
  if (problem !== undefined) throw invalid(problem);
  return { src, digest: digest as Digest };
}

/** The store that the client serves for a directory. The name is the client's; no path of this machine. */
async function openStore(
  host: CacheBackendHost,
  dir: string,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<ContentClient> {
  const [id] = ids;
  if (id === undefined) throw invalid("local cache exporter/importer requires session");
  if (/[^\x20-\x7e]/.test(dir)) {
    throw invalid(
      'header key "buildkit-attachable-store-id" contains value with non-printable ASCII characters',
    );
  }
  const both = AbortSignal.any([signal, AbortSignal.timeout(FIND_TIMEOUT_MS)]);
  return contentOf(await host.sessions.get(id, { signal: both }), `local:${dir}`);
}

/** Layers in a client's directory: had while its session lasts, so they are fetched at once. */
class DirectoryLayers extends LayerProvider {
  override readonly eager = true;
  readonly #host: CacheBackendHost;
  readonly #dir: string;
  readonly #ids: readonly string[];

  constructor(host: CacheBackendHost, dir: string, ids: readonly string[]) {
    super();
    this.#host = host;
    this.#dir = dir;
    this.#ids = ids;
  }

  /** Always from the client whose directory it is, whoever asks. */
  async *fetch(desc: Descriptor, { signal }: BlobReader): AsyncGenerator<Uint8Array> {
    const store = await openStore(this.#host, this.#dir, this.#ids, signal);
    yield* store.read(desc.digest, {}, signal);
  }

  override async check(desc: Descriptor, { signal }: BlobReader): Promise<void> {
    const store = await openStore(this.#host, this.#dir, this.#ids, signal);
    const { sizeBytes } = await store.info(desc.digest, signal);
    if (sizeBytes !== desc.size)
      throw new BuildError("not_found", `${desc.digest} has ${sizeBytes} bytes, not ${desc.size}`);
  }
}

class DirectoryTarget implements ManifestTarget {
  readonly #host: CacheBackendHost;
  readonly #store: ContentClient;

  constructor(host: CacheBackendHost, store: ContentClient) {
    this.#host = host;
    this.#store = store;
  }

  async layer(blob: CacheBlob, ctx: OpContext): Promise<void> {
    const desc = asDescriptor(blob.descriptor);
    if (await this.#has(desc.digest, ctx)) return;
    await this.#host.blobs.ensure(blob, ctx);
    await this.#write(desc, this.#host.blobs.content.read(desc.digest), ctx);
  }

  config(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void> {
    return this.#write(desc, [bytes], ctx);
  }

  manifest(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void> {
    return this.#write(desc, [bytes], ctx);
  }

  async #has(digest: string, ctx: OpContext): Promise<boolean> {
    try {
      await this.#store.info(digest, ctx.signal);
      return true;
    } catch (error) {
      if (isBuildError(error, "not_found")) return false;
      throw error;
    }
  }

  async #write(
    desc: Descriptor,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    ctx: OpContext,
  ): Promise<void> {
    try {
      await this.#store.write(desc.digest, source, {
        digest: desc.digest,
        sizeBytes: desc.size,
        signal: ctx.signal,
      });
    } catch (error) {
      if (!isBuildError(error, "already_exists")) throw error;
    }
  }
}
