/**
 * The Dockerfile frontend without a daemon: reads Dockerfiles and ignore files from a view of the files, knows images
 * by name only, and keeps the definitions that a daemon would solve.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { gatewayCaps, llbCaps } from "@kiln/api";
import { OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import {
  buildDockerfile,
  type FrontendBackend,
  type FrontendRef,
  type FrontendResult,
  type ResolvedImage,
  type ResolveImageOptions,
  type SolveRequest,
  type SourceMetadata,
} from "@kiln/dockerfile";
import { goJson } from "@kiln/formats";
import type { Definition } from "@kiln/llb";
import {
  type Digest,
  familiarReference,
  formatPlatformAll,
  type Platform,
  parsePlatform,
  parseReference,
} from "@kiln/oci";

/** A directory by the name that it has in frontend attributes. */
export type OfflineDir = { readonly read: (path: string) => Uint8Array | undefined };

/** A Dockerfile's request. */
export interface OfflineRequest {
  readonly attrs: ReadonlyMap<string, string>;
  readonly dirs: ReadonlyMap<string, OfflineDir>;
  readonly buildPlatform: string;
}

/** What the frontend made of it. */
export interface OfflineResult {
  /** What would be solved, by platform id; undefined for an empty file system. */
  readonly definitions: ReadonlyMap<string, Definition | undefined>;
  /** Configs of the images as JSON, by platform id. */
  readonly configs: ReadonlyMap<string, string>;
  /** Images that were asked for, by the names that people use. */
  readonly images: readonly string[];
  /** The image that `# syntax=` or an argument names as frontend; "" for none. */
  readonly frontend: string;
  /** Variables are used that aren't set, as far as is known without base images. */
  readonly hasUnknownVariables: boolean;
}

/** The Dockerfile wants a frontend that only a daemon can run. */
export class ForeignFrontend extends Error {
  override readonly name = "ForeignFrontend";
}

/** The Dockerfile, or the context, is on another machine. */
export class RemoteFiles extends Error {
  override readonly name = "RemoteFiles";
}

/** True for an image that is the frontend which is built in. */
export function isDockerfileFrontend(image: string): boolean {
  try {
    const { domain, path } = parseReference(image);
    return domain === "docker.io" && /^docker\/dockerfile(?:-upstream)?$/.test(path);
  } catch {
    return false;
  }
}

/**
 * Runs the frontend. @throws {@link ForeignFrontend} and {@link RemoteFiles} where more than this machine is needed,
 * and what `buildDockerfile` throws for mistakes.
 */
export async function runOffline(request: OfflineRequest): Promise<OfflineResult> {
  const backend = new OfflineBackend(request);
  const result = await buildDockerfile(backend);
  const single = platformOf(request);
  const definitions = new Map<string, Definition | undefined>();
  for (const [id, ref] of result.refs ?? [[single, result.ref]])
    definitions.set(id, ref instanceof OfflineRef ? ref.definition : undefined);
  const configs = new Map<string, string>();
  for (const [key, value] of result.metadata) {
    const [, id] = /^containerimage\.config(?:\/(.*))?$/.exec(key) ?? [];
    if (key === "containerimage.config" || id !== undefined)
      configs.set(id ?? single, new TextDecoder().decode(value));
  }
  const { frontend, hasUnknownVariables } = backend;
  return { definitions, configs, images: backend.images(), frontend, hasUnknownVariables };
}

function platformOf({ attrs, buildPlatform }: OfflineRequest): string {
  const text = attrs.get("platform") ?? "";
  return formatPlatformAll(parsePlatform(text === "" ? buildPlatform : text.split(",", 1)[0]!));
}

class OfflineRef implements FrontendRef {
  readonly definition: Definition | undefined;
  readonly #dir: OfflineDir | undefined;

  constructor(definition: Definition | undefined, dir: OfflineDir | undefined) {
    this.definition = definition;
    this.#dir = dir;
  }

  async readFile(
    path: string,
    range: { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array> {
    const bytes = this.#file(path);
    const start = range.offset ?? 0;
    return bytes.slice(start, range.length === undefined ? undefined : start + range.length);
  }

  async statFile(path: string): Promise<{ readonly size: number }> {
    return { size: this.#file(path).length };
  }

  #file(path: string): Uint8Array {
    if (this.#dir === undefined) throw new RemoteFiles(path);
    const bytes = this.#dir.read(path);
    if (bytes !== undefined) return bytes;
    throw new BuildError("not_found", `open ${path}: no such file or directory`);
  }
}

class OfflineBackend implements FrontendBackend {
  readonly opts: ReadonlyMap<string, string>;
  readonly sessionId = "session";
  readonly workers: FrontendBackend["workers"];
  readonly caps = new Set(gatewayCaps.map(({ id }) => id));
  readonly llbCaps = new Set(llbCaps.map(({ id }) => id));
  readonly defaultPlatform: Platform;
  hasUnknownVariables = false;
  frontend = "";
  readonly #request: OfflineRequest;
  readonly #images = new Set<string>();

  constructor(request: OfflineRequest) {
    this.#request = request;
    // Checks are wanted, whatever the Dockerfile skips.
    this.opts = new Map([...request.attrs, ["build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip="]]);
    this.defaultPlatform = parsePlatform(request.buildPlatform);
    this.workers = [{ id: "key", platforms: [this.defaultPlatform] }];
  }

  images(): string[] {
    return [...this.#images].sort();
  }

  async inputs(): Promise<ReadonlyMap<string, Definition>> {
    return new Map();
  }

  async resolveImageConfig(ref: string, options: ResolveImageOptions): Promise<ResolvedImage> {
    const { os, architecture } = options.platform ?? this.defaultPlatform;
    const reference = parseReference(ref);
    this.#images.add(familiarReference(reference));
    const digest = reference.digest as Digest | undefined;
    const config = goJson({ os, architecture, rootfs: { type: "layers" }, history: [{}] });
    return { ref, digest, config: new TextEncoder().encode(config) };
  }

  async resolveSourceMetadata(): Promise<SourceMetadata> {
    return {};
  }

  async solve(request: SolveRequest): Promise<FrontendResult> {
    if (request.frontend !== undefined) return this.#forward(request);
    const { definition } = request;
    if (definition === undefined || definition.def.length === 0) {
      return { ref: new OfflineRef(undefined, undefined), metadata: new Map() };
    }
    const name = localName(definition);
    const dir = name === undefined ? undefined : this.#request.dirs.get(name);
    return { ref: new OfflineRef(definition, dir), metadata: new Map() };
  }

  /** `# syntax=docker/dockerfile:1` is this frontend; any other can't be run. */
  async #forward({ opts }: SolveRequest): Promise<FrontendResult> {
    const source = opts?.get("source") ?? "";
    if (!isDockerfileFrontend(source)) throw new ForeignFrontend(source);
    this.frontend = source;
    const inner = new OfflineBackend({ ...this.#request, attrs: opts ?? new Map() });
    const result = await buildDockerfile(inner);
    for (const image of inner.#images) this.#images.add(image);
    this.hasUnknownVariables ||= inner.hasUnknownVariables;
    return result;
  }

  warn(_vertex: Digest, message: string): void {
    if (message.startsWith("UndefinedVar:")) this.hasUnknownVariables = true;
  }
}

/** The name of the only source of a definition, if that is a directory of the client. */
function localName({ def }: Definition): string | undefined {
  if (def.length !== 2) return undefined;
  const { op } = fromBinary(OpSchema, def[0]!);
  if (op.case !== "source") return undefined;
  return /^local:\/\/(.*)$/.exec(op.value.identifier)?.[1];
}
