import { BuildError, isBuildError } from "@kiln/base";
import { newId } from "@kiln/formats";
import {
  type Definition,
  type GitOptions,
  git,
  headDigest,
  http,
  type LocalOptions,
  local,
  type MarshalOptions,
  type SourceMap,
  type State,
  scratch,
  stateFromDefinition,
} from "@kiln/llb";
import type { Digest } from "@kiln/oci";
import { readIgnoreFile } from "@kiln/patterns";
import { textFromBytes } from "../base/bytes.ts";
import { type GitRef, parseGitRef } from "../base/git-ref.ts";
import { parseBool } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { isArchive } from "./archive.ts";
import type { FrontendBackend, FrontendRef } from "./backend.ts";
import type { FrontendConfig } from "./config.ts";
import { withPrefix } from "./config.ts";
import { FileTooLarge, readOptionalFile, readSmallFile } from "./files.ts";

const DOCKERFILE = "Dockerfile";
const IGNORE_FILE = ".dockerignore";
/** Bytes that tell an archive from a Dockerfile. */
const SNIFF_BYTES = 1024;

/** Where the Dockerfile and the context are. */
interface Places {
  /** The context, unless it is the client's directory. */
  readonly context: State | undefined;
  /** What has the Dockerfile, unless it is the client's directory. */
  readonly dockerfile: State | undefined;
  readonly contextName: string;
  readonly dockerfileName: string;
  readonly filename: string;
}

/** The Dockerfile of a request. */
export interface LoadedDockerfile {
  readonly source: SourceMap;
  /** The vertex that it was read from; warnings go there. */
  readonly vertex: Digest;
}

/** A name of the daemon's own for a vertex. */
export function internalName(name: string): string {
  return `[internal] ${name}`;
}

/** Finds the files of a request. */
export class ContextFiles {
  readonly #backend: FrontendBackend;
  readonly #config: FrontendConfig;
  readonly #sessions: ReadonlyMap<string, string>;
  #places: Promise<Places> | undefined;
  #inputs: Promise<ReadonlyMap<string, Definition>> | undefined;
  #ignore: Promise<readonly string[]> | undefined;
  /** `<Dockerfile>.dockerignore`, if there is one. */
  #ownIgnore: { readonly name: string; readonly data: Uint8Array } | undefined;

  constructor(backend: FrontendBackend, config: FrontendConfig) {
    this.#backend = backend;
    this.#config = config;
    this.#sessions = withPrefix(config.opts, "local-sessionid:");
  }

  /** The session that has a local directory. */
  sessionOf(name: string): string {
    return this.#sessions.get(name) ?? this.#backend.sessionId;
  }

  /** Options to marshal definitions that are solved on the way. */
  marshalOptions(): MarshalOptions {
    return { caps: this.#backend.caps, platform: this.#backend.defaultPlatform, localUniqueId: newId() };
  }

  /** Definitions that the client sent, as states. */
  async input(name: string): Promise<State | undefined> {
    this.#inputs ??= this.#backend.inputs();
    const definition = (await this.#inputs).get(name);
    return definition === undefined ? undefined : stateFromDefinition(definition);
  }

  /** Reads the Dockerfile, and the ignore file beside it. */
  async loadDockerfile(): Promise<LoadedDockerfile> {
    const places = await this.#find();
    const { filename } = places;
    const from = places.dockerfile ?? this.#dockerfileSource(places);
    const definition = from.marshal(this.marshalOptions());
    const ref = await this.#solve(definition, "failed to resolve dockerfile");
    const data = await readDockerfile(ref, filename);
    const ownIgnore = await readOptionalFile(ref, `${filename}${IGNORE_FILE}`);
    if (ownIgnore !== undefined) this.#ownIgnore = { name: `${filename}${IGNORE_FILE}`, data: ownIgnore };
    const vertex = headDigest(definition);
    if (vertex === undefined) throw new Problem("failed to resolve dockerfile: empty source");
    return { source: { filename, language: DOCKERFILE, data, definition }, vertex };
  }

  #dockerfileSource(places: Places): State {
    const { filename, dockerfileName } = places;
    const followPaths = [filename, `${filename}${IGNORE_FILE}`];
    const slash = filename.lastIndexOf("/") + 1;
    if (filename.slice(slash) === DOCKERFILE)
      followPaths.push(filename.slice(0, slash) + DOCKERFILE.toLowerCase());
    return local(dockerfileName, {
      followPaths,
      sessionId: this.sessionOf(dockerfileName),
      sharedKeyHint: dockerfileName,
      name: internalName(`load build definition from ${filename}`),
      differ: { type: "none" },
    });
  }

  /** The build context, limited to `followPaths` unless there are none. */
  async mainContext(followPaths: readonly string[]): Promise<State> {
    const places = await this.#find();
    if (places.context !== undefined) return places.context;
    return local(places.contextName, {
      sessionId: this.sessionOf(places.contextName),
      excludePatterns: await this.#patterns(places),
      sharedKeyHint: places.contextName,
      name: internalName("load build context"),
      followPaths,
    });
  }

  /** Patterns of the ignore file; only local contexts have one. */
  async ignorePatterns(): Promise<readonly string[]> {
    const places = await this.#find();
    return places.context === undefined ? this.#patterns(places) : [];
  }

  #patterns(places: Places): Promise<readonly string[]> {
    this.#ignore ??= this.#readPatterns(places);
    return this.#ignore;
  }

  async #readPatterns(places: Places): Promise<readonly string[]> {
    const own = this.#ownIgnore;
    if (own !== undefined) return parsePatterns(own.data, own.name);
    const data = await this.readIgnoreFile(places.contextName, {
      sharedKeyHint: `${places.contextName}-${IGNORE_FILE}`,
      name: internalName(`load ${IGNORE_FILE}`),
    });
    return data === undefined ? [] : parsePatterns(data, IGNORE_FILE);
  }

  /** The `.dockerignore` of a directory of the client. */
  async readIgnoreFile(
    name: string,
    options: Pick<LocalOptions, "sharedKeyHint" | "name"> & { readonly evaluate?: boolean },
  ): Promise<Uint8Array | undefined> {
    const source = local(name, {
      sessionId: this.sessionOf(name),
      followPaths: [IGNORE_FILE],
      differ: { type: "none" },
      sharedKeyHint: options.sharedKeyHint,
      name: options.name,
    });
    const definition = source.marshal(this.marshalOptions());
    const result = await this.#backend.solve({ definition, ...(options.evaluate ? { evaluate: true } : {}) });
    return result.ref === undefined ? undefined : readOptionalFile(result.ref, IGNORE_FILE);
  }

  #find(): Promise<Places> {
    this.#places ??= this.#locate();
    return this.#places;
  }

  async #locate(): Promise<Places> {
    const { opts } = this.#config;
    const places: Places = {
      context: undefined,
      dockerfile: undefined,
      contextName: "context",
      dockerfileName: opts.get("dockerfilekey") ?? "dockerfile",
      filename: opts.get("filename") ?? DOCKERFILE,
    };
    const found = await this.#remote(places, opts.get(opts.get("contextkey") ?? "context") ?? "");
    const dockerfile = opts.has("dockerfilekey") ? undefined : found.dockerfile;
    const subdir = opts.get("contextsubdir");
    if (found.context === undefined || subdir === undefined) return { ...found, dockerfile };
    const context = scratch().file({
      kind: "copy",
      from: found.context,
      src: subdir,
      dest: "/",
      contentsOnly: true,
    });
    return { ...found, dockerfile, context };
  }

  async #remote(places: Places, address: string): Promise<Places> {
    const fromGit = this.gitContext(address, { fromOptions: true });
    if (fromGit !== undefined) return { ...places, context: fromGit, dockerfile: fromGit };
    if (/^https?:\/\//.test(address)) return this.#download(places, address);
    if (!this.#backend.caps.has("frontend.inputs")) return places;
    return {
      ...places,
      context: await this.input("context"),
      dockerfile: await this.input(places.dockerfileName),
    };
  }

  /** A context in a git repository; undefined for another address. Throws a problem for a bad query. */
  gitContext(address: string, options: { readonly fromOptions?: boolean } = {}): State | undefined {
    const ref = parseGitRef(address);
    if (ref === undefined) return undefined;
    const { opts, settings } = this.#config;
    const keep = options.fromOptions && parseBool(opts.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR") ?? "");
    const byEpoch = options.fromOptions && (opts.get("build-arg:SOURCE_DATE_EPOCH") ?? "") !== "";
    return git(ref.remote, {
      ...gitOptions(ref),
      advice: settings.gitAdvice,
      keepGitDir: ref.keepGitDir === true || keep === true,
      mtime: ref.mtime || (byEpoch ? "commit" : ""),
      name: internalName(`load git source ${address}`),
    });
  }

  async #download(places: Places, url: string): Promise<Places> {
    const filename = "context";
    const file = http(url, { filename, name: internalName("load remote build context") });
    const ref = await this.#solve(file.marshal(this.marshalOptions()), "failed to resolve httpcontext");
    const head = await readHead(ref, filename);
    if (!isArchive(head)) return { ...places, filename, context: file, dockerfile: file };
    const files = scratch().file({
      kind: "copy",
      from: file,
      src: `/${filename}`,
      dest: "/",
      attemptUnpack: true,
    });
    return { ...places, context: files, dockerfile: files };
  }

  async #solve(definition: Definition, failure: string): Promise<FrontendRef> {
    try {
      const { ref } = await this.#backend.solve({ definition });
      if (ref !== undefined) return ref;
    } catch (error) {
      throw prefixed(error, failure);
    }
    throw new BuildError("unknown", `${failure}: no result`);
  }
}

function gitOptions(ref: GitRef): GitOptions {
  return {
    ref: ref.ref,
    subdir: ref.subdir,
    checksum: ref.checksum,
    skipSubmodules: ref.submodules === false,
    fetchByCommit: ref.fetchByCommit,
  };
}

async function readHead(ref: FrontendRef, filename: string): Promise<Uint8Array> {
  try {
    return await ref.readFile(filename, { length: SNIFF_BYTES });
  } catch (error) {
    throw prefixed(error, "failed to read downloaded context");
  }
}

/** `Dockerfile` may be written in lower case. */
async function readDockerfile(ref: FrontendRef, filename: string): Promise<Uint8Array> {
  try {
    return await readSmallFile(ref, filename);
  } catch (error) {
    const slash = filename.lastIndexOf("/") + 1;
    if (filename.slice(slash) === DOCKERFILE && !(error instanceof FileTooLarge)) {
      const other = await readOptionalFile(ref, filename.slice(0, slash) + DOCKERFILE.toLowerCase());
      if (other !== undefined) return other;
    }
    throw prefixed(error, "failed to read dockerfile");
  }
}

/** The error with words in front; its kind and details stay. */
export function prefixed(error: unknown, prefix: string): unknown {
  if (error instanceof Problem) {
    const { code, locations, cause } = error;
    return new Problem(`${prefix}: ${error.message}`, { code, locations, cause });
  }
  if (!isBuildError(error) || error.code === "canceled") return error;
  return new BuildError(error.code, `${prefix}: ${error.message}`, { cause: error, wire: error.wire });
}

/** Patterns of an ignore file. */
export function parsePatterns(data: Uint8Array, name: string): readonly string[] {
  try {
    return readIgnoreFile(textFromBytes(data));
  } catch (error) {
    if (isBuildError(error)) throw new Problem(`failed parsing ${name}: ${error.message}`);
    throw error;
  }
}
