import { create } from "@bufbuild/protobuf";
import { gatewayCaps, llbCaps } from "@kiln/api/caps";
import { SourceInfoSchema, SourceOpSchema } from "@kiln/api/pb";
import { decompress } from "@kiln/archive";
import { BuildError, wrapError } from "@kiln/base";
import {
  buildDockerfile,
  type FrontendResult as DockerfileResult,
  type SolveRequest as DockerfileSolve,
  type FrontendAttestation,
  type FrontendBackend,
  type FrontendRef,
} from "@kiln/dockerfile";
import { definitionFromMessage, definitionMessage } from "@kiln/llb";
import { parseDigest } from "@kiln/oci";
import { localMount } from "@kiln/sys";
import { groupOf } from "../session-group.ts";
import type { Attestation } from "../solve/build-results.ts";
import { hostPlatform } from "../worker/host-platform.ts";
import type { Frontend, FrontendBridge, FrontendRequest, FrontendResult, ResultProxy } from "./frontend.ts";
import { readTreeFile, statTreeFile } from "./tree-files.ts";

/** The Dockerfile frontend, in the daemon's own process. */
export const dockerfileFrontend: Frontend = {
  name: "dockerfile.v0",
  solve: async (request) => {
    const proxies = new ProxyRefs(request);
    try {
      const result = await buildDockerfile(backendOf(request, proxies));
      return proxies.convert(result);
    } finally {
      await proxies.releaseRest();
    }
  },
};

/** Refs that the frontend has got, and which of them it returns. */
export class ProxyRefs {
  readonly #request: FrontendRequest;
  readonly #proxies = new Map<FrontendRef, ResultProxy>();
  readonly #returned = new Set<ResultProxy>();

  constructor(request: FrontendRequest) {
    this.#request = request;
  }

  wrap(proxy: ResultProxy | undefined): FrontendRef | undefined {
    if (proxy === undefined) return undefined;
    const ref: FrontendRef = {
      readFile: (path, range) =>
        this.#withTree(proxy, (root) =>
          readTreeFile(
            root,
            path,
            range && { offset: range.offset ?? 0, length: range.length ?? Number.MAX_SAFE_INTEGER },
          ),
        ),
      statFile: (path) => this.#withTree(proxy, (root) => ({ size: Number(statTreeFile(root, path).size) })),
    };
    this.#proxies.set(ref, proxy);
    return ref;
  }

  convert(result: DockerfileResult): FrontendResult {
    const take = (ref: FrontendRef | undefined): ResultProxy | undefined => {
      const proxy = ref && this.#proxies.get(ref);
      if (proxy !== undefined) this.#returned.add(proxy);
      return proxy;
    };
    return {
      ref: take(result.ref),
      refs: result.refs && new Map([...result.refs].map(([key, ref]) => [key, take(ref)])),
      metadata: new Map(result.metadata),
      attestations: new Map(
        [...(result.attestations ?? [])].map(([key, list]) => [
          key,
          list.map((item) => attestationOf(item, take)),
        ]),
      ),
    };
  }

  async releaseRest(): Promise<void> {
    for (const proxy of this.#proxies.values()) if (!this.#returned.has(proxy)) await proxy.release();
  }

  async #withTree<T>(proxy: ResultProxy, use: (root: string) => T): Promise<T> {
    const { signal } = this.#request;
    const { ref } = (await proxy.result(signal)).result;
    if (ref === undefined) {
      using empty = localMount([]);
      return use(empty.path);
    }
    await using mountable = await ref.mount(true, {
      signal,
      session: groupOf([this.#request.bridge.sessionId]),
    });
    using dir = localMount(mountable.mounts);
    return use(dir.path);
  }
}

function attestationOf(
  item: FrontendAttestation,
  take: (ref: FrontendRef | undefined) => ResultProxy | undefined,
): Attestation<ResultProxy> {
  return {
    kind: item.kind,
    metadata: item.metadata,
    ref: take(item.ref),
    path: item.path ?? "",
    predicateType: item.predicateType,
    subjects: item.subjects ?? [],
  };
}

/** The daemon as frontends of the Dockerfile family see it. */
export function backendOf(request: FrontendRequest, proxies: ProxyRefs): FrontendBackend {
  const { bridge, attrs, inputs, signal } = request;
  return {
    opts: attrs,
    sessionId: bridge.sessionId,
    workers: [{ id: "", platforms: bridge.platforms }],
    caps: new Set(gatewayCaps.map((cap) => cap.id)),
    llbCaps: new Set(llbCaps.map((cap) => cap.id)),
    defaultPlatform: hostPlatform(),
    inputs: async () =>
      new Map([...inputs].map(([name, definition]) => [name, definitionFromMessage(definition)])),
    resolveImageConfig: (ref, options) => resolveImage(bridge, signal, { ref, options }),
    resolveSourceMetadata: async (source, options) => {
      const found = await bridge.resolveSourceMetadata(
        create(SourceOpSchema, { identifier: source.identifier, attrs: Object.fromEntries(source.attrs) }),
        {
          platform: undefined,
          logName: options.logName ?? "",
          resolveMode: "",
          ...(options.gitObject === undefined ? {} : { git: { returnObject: options.gitObject } }),
        },
        signal,
      );
      return {
        git: found.git && { commitObject: found.git.commitObject },
        http: found.http && { lastModifiedMs: found.http.lastModified },
      };
    },
    solve: (solve) => solveFor(request, proxies, solve),
    warn: (vertex, message, options) =>
      bridge.warn({
        vertex,
        level: options.level,
        short: message,
        detail: options.detail.map((line) => new TextDecoder().decode(line)),
        url: options.url,
        sourceInfo: create(SourceInfoSchema, {
          filename: options.source.filename,
          data: options.source.data,
          language: options.source.language,
          ...(options.source.definition === undefined
            ? {}
            : { definition: definitionMessage(options.source.definition) }),
        }),
        ranges: options.ranges.map(({ start, end }) => ({
          $typeName: "pb.Range",
          start: { $typeName: "pb.Position", ...start },
          end: { $typeName: "pb.Position", ...end },
        })),
      }),
    decompress: decompressAll,
  };
}

async function solveFor(
  request: FrontendRequest,
  proxies: ProxyRefs,
  solve: DockerfileSolve,
): Promise<DockerfileResult> {
  const result = await request.bridge.solve(
    {
      definition: solve.definition && definitionMessage(solve.definition),
      frontend: solve.frontend ?? "",
      frontendAttrs: solve.opts ?? new Map(),
      frontendInputs: new Map(
        [...(solve.inputs ?? [])].map(([name, definition]) => [name, definitionMessage(definition)]),
      ),
      cacheImports: solve.cacheImports ?? [],
      sourcePolicies: [],
      evaluate: solve.evaluate ?? false,
    },
    request.signal,
  );
  return {
    ref: proxies.wrap(result.ref),
    refs: result.refs && new Map([...result.refs].map(([key, ref]) => [key, proxies.wrap(ref)])),
    metadata: result.metadata,
    attestations: new Map(
      [...result.attestations].map(([key, list]) => [
        key,
        list.map((item) => ({
          kind: item.kind,
          ref: proxies.wrap(item.ref),
          metadata: item.metadata,
          predicateType: item.predicateType,
          path: item.path,
          subjects: item.subjects,
        })),
      ]),
    ),
  };
}

/** Looks an image up for a frontend. @throws BuildError that names the image. */
export async function resolveImage(
  bridge: FrontendBridge,
  signal: AbortSignal,
  image: {
    readonly ref: string;
    readonly options: Parameters<FrontendBackend["resolveImageConfig"]>[1];
  },
): ReturnType<FrontendBackend["resolveImageConfig"]> {
  const { ref, options } = image;
  const scheme = options.store === undefined ? "docker-image" : "oci-layout";
  const source = create(SourceOpSchema, { identifier: `${scheme}://${ref}` });
  if (options.store !== undefined) {
    source.attrs["oci.session"] = options.store.sessionId;
    source.attrs["oci.store"] = options.store.storeId;
  }
  const found = await bridge
    .resolveSourceMetadata(
      source,
      {
        platform: options.platform,
        logName: options.logName ?? "",
        resolveMode: options.resolveMode ?? "",
      },
      signal,
    )
    .catch((error: unknown) => {
      throw wrapError(error, `failed to resolve source metadata for ${ref}`);
    });
  const { identifier } = found.source;
  const at = identifier.indexOf("://");
  if (found.image === undefined) return { redirect: identifier };
  return {
    ref: identifier.slice(at + 3),
    digest: found.image.digest === "" ? undefined : parseDigest(found.image.digest),
    config: found.image.config,
  };
}

/** Bytes of an archive that is read to find its newest file. */
const MAX_ARCHIVE_BYTES = 1 << 30;

async function decompressAll(data: Uint8Array): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    yield data;
  }
  for await (const chunk of decompress(source())) {
    total += chunk.length;
    if (total > MAX_ARCHIVE_BYTES) throw new BuildError("resource_exhausted", "archive is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
