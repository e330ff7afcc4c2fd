import type { Descriptor } from "@kiln/oci";
import { formatReference, mediaTypes, parseReference, type Reference, withDefaultTag } from "@kiln/oci";
import { mountCandidates, type RegistryClient } from "@kiln/registry";
import type { CacheBlob } from "@kiln/solver/remote-cache";
import type { OpContext } from "../op-context.ts";
import { repositoryOf } from "../sources/image/image-reference.ts";
import { type CacheAttrs, flagAttr, invalid, readAttrs, textAttr } from "./cache-attrs.ts";
import type { CacheBackend, CacheBackendHost } from "./cache-backend.ts";
import { asDescriptor } from "./cache-blobs.ts";
import { type BlobReader, LayerProvider } from "./layer-provider.ts";
import { type ManifestTarget, manifestFormat, writeManifestCache } from "./manifest-format.ts";
import { importManifest } from "./manifest-import.ts";

const SPECS = {
  ref: textAttr(""),
  "registry.insecure": flagAttr(false),
};

interface RegistryPlace {
  readonly ref: Reference;
  readonly insecure: boolean;
}

/** Caches in registries; imports also take images with inline caches. */
export function registryCache(host: CacheBackendHost): CacheBackend {
  return {
    exportName: "exporting cache to registry",
    exporter: (attrs) => {
      const format = manifestFormat(attrs);
      const place = placeOf(attrs);
      return {
        compression: format.compression,
        send: (cache, ctx) =>
          writeManifestCache(cache, format, new RegistryTarget(host, place, clientOf(host, place, ctx)), ctx),
      };
    },
    importer: (attrs) => {
      const place = placeOf(attrs);
      return {
        open: async (ctx) => {
          const client = clientOf(host, place, ctx);
          const top = await client.resolve(place.ref, { signal: ctx.signal });
          const provider = new RegistryLayers(host, place);
          return { read: (chains) => importManifest(top, { provider, chains, ctx }) };
        },
      };
    },
  };
}

function placeOf(attrs: CacheAttrs): RegistryPlace {
  const values = readAttrs(attrs, SPECS);
  if (values.ref === "") throw invalid("missing ref");
  return { ref: withDefaultTag(parseReference(values.ref)), insecure: values["registry.insecure"] };
}

function clientOf(host: CacheBackendHost, place: RegistryPlace, ctx: OpContext): RegistryClient {
  return clientFor(host, place, ctx.sessions.ids());
}

function clientFor(host: CacheBackendHost, place: RegistryPlace, ids: readonly string[]): RegistryClient {
  return host.registries.client(host.authenticators.of(ids), { insecure: place.insecure });
}

/** Layers in a registry, read as whoever needs them. */
class RegistryLayers extends LayerProvider {
  override readonly remotes: readonly string[];
  override readonly imageRefs: readonly string[];
  readonly #host: CacheBackendHost;
  readonly #place: RegistryPlace;

  constructor(host: CacheBackendHost, place: RegistryPlace) {
    super();
    this.#host = host;
    this.#place = place;
    // the daemon finds them again only under its own configuration of the registry
    this.remotes = place.insecure ? [] : [repositoryOf(place.ref)];
    this.imageRefs = [formatReference(place.ref)];
  }

  fetch(desc: Descriptor, { ids, signal }: BlobReader): AsyncIterable<Uint8Array> {
    return clientFor(this.#host, this.#place, ids).fetchBlob(this.#place.ref, desc, { signal });
  }
}

class RegistryTarget implements ManifestTarget {
  readonly #host: CacheBackendHost;
  readonly #place: RegistryPlace;
  readonly #client: RegistryClient;

  constructor(host: CacheBackendHost, place: RegistryPlace, client: RegistryClient) {
    this.#host = host;
    this.#place = place;
    this.#client = client;
  }

  async layer(blob: CacheBlob, ctx: OpContext): Promise<void> {
    const { blobs } = this.#host;
    const { ref } = this.#place;
    const desc = asDescriptor(blob.descriptor);
    if (!blobs.content.has(desc.digest)) {
      if (await this.#client.has(ref, desc, { signal: ctx.signal })) return;
      await blobs.ensure(blob, ctx);
    }
    await this.#client.pushBlob(
      ref,
      desc,
      { read: (range) => blobs.content.read(desc.digest, range) },
      { signal: ctx.signal, mountFrom: mountCandidates(ref, Object.entries(desc.annotations ?? {})) },
    );
  }

  async config(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void> {
    const blob = { ...desc, mediaType: mediaTypes.octetStream };
    const read = ({ offset }: { readonly offset: number }): AsyncIterable<Uint8Array> =>
      bytesFrom(bytes.subarray(offset));
    await this.#client.pushBlob(this.#place.ref, blob, { read }, { signal: ctx.signal });
  }

  async manifest(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void> {
    await this.#client.pushManifest(this.#place.ref, desc, bytes, { signal: ctx.signal });
  }
}

async function* bytesFrom(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
