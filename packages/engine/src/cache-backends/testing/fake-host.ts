import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { BuildError } from "@kiln/base";
import { annotationKeys, type Descriptor, mediaTypes } from "@kiln/oci";
import { HttpTransport, Registries } from "@kiln/registry";
import { SessionManager } from "@kiln/session";
import { CacheChains, type MarshaledCache, marshalChains } from "@kiln/solver/remote-cache";
import type { ContentStore, RefManager } from "@kiln/store";
import { SessionAuthenticators } from "../../sources/source-sessions.ts";
import { fakeContent, fakeSessions } from "../../sources/testing/fake-engine.ts";
import type { CacheEnv } from "../cache-attrs.ts";
import type { CacheBackendHost } from "../cache-backend.ts";
import { CacheBlobs } from "../cache-blobs.ts";
import { LayerProvider } from "../layer-provider.ts";

/** A host whose content store is in memory; there are no records. */
export function fakeHost(env: CacheEnv = {}): CacheBackendHost & { readonly stored: Map<string, Buffer> } {
  const { content, blobs: stored } = fakeContent();
  const readable: Partial<ContentStore> = {
    ...content,
    async *read(digest, range) {
      const blob = stored.get(digest);
      if (blob === undefined) throw new BuildError("not_found", digest);
      const { offset = 0, length = blob.length } = range ?? {};
      yield blob.subarray(offset, offset + length);
    },
  };
  return {
    registries: new Registries({ limits: { retryDelayMs: 5, maxAttempts: 2 } }),
    authenticators: new SessionAuthenticators(fakeSessions({})),
    sessions: new SessionManager(),
    blobs: new CacheBlobs(readable as ContentStore, {} as RefManager),
    env,
    transport: new HttpTransport(),
    stored,
  };
}

/** sha256 of some bytes. */
export function digestOf(bytes: Uint8Array | string): `sha256:${string}` {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** A layer's descriptor as the store makes it. */
export function layerOf(bytes: Uint8Array): Descriptor {
  return {
    mediaType: mediaTypes.ociLayerGzip,
    digest: digestOf(bytes),
    size: bytes.length,
    annotations: {
      [annotationKeys.uncompressed]: digestOf(`raw ${digestOf(bytes)}`),
      [annotationKeys.createdAt]: "2026-01-02T03:04:05.000000006Z",
    },
  };
}

/** A cache of one source and one step with these layers, whose bytes the host then has. */
export function sampleCache(
  host: { readonly stored: Map<string, Buffer> },
  layers: readonly Uint8Array[],
): MarshaledCache {
  for (const layer of layers) host.stored.set(digestOf(layer), Buffer.from(layer));
  const chains = new CacheChains();
  const source = chains.add(digestOf("source"), [], []);
  const remote = { descriptors: layers.map(layerOf), provider: undefined };
  chains.add(
    digestOf("step"),
    [[{ record: source!, selector: "" }]],
    [{ remote, createdAtNs: 5n, vertex: "", index: 0 }],
  );
  return marshalChains(chains);
}

/** Blobs in memory as a source of layers. */
export class MemoryLayers extends LayerProvider {
  readonly blobs = new Map<string, Uint8Array>();

  put(bytes: Uint8Array): `sha256:${string}` {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return digest;
  }

  async *fetch(desc: Descriptor): AsyncGenerator<Uint8Array> {
    const bytes = this.blobs.get(desc.digest);
    if (bytes === undefined) throw new BuildError("not_found", desc.digest);
    yield bytes;
  }
}

/** A request that a test server got. */
export interface Asked {
  readonly method: string;
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** A server on loopback. */
export async function testServer(
  answer: (asked: Asked, res: ServerResponse) => void,
): Promise<{ readonly origin: string; readonly asked: Asked[] } & AsyncDisposable> {
  const asked: Asked[] = [];
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on("data", (chunk: Buffer) => chunks.push(chunk));
    req.on("end", () => {
      const url = new URL(req.url ?? "/", "http://127.0.0.1");
      const seen = { method: req.method ?? "", url, headers: req.headers, body: Buffer.concat(chunks) };
      asked.push(seen);
      answer(seen, res);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
