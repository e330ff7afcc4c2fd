import { BuildError, isBuildError } from "@kiln/base";
import { bytesFromBase64, quoteGo } from "@kiln/formats";
import { http, image as imageSource, LazyOutput, local, ociLayout, State, scratch } from "@kiln/llb";
import {
  familiarReference,
  formatPlatformAll,
  formatReference,
  normalizePlatform,
  parseBareReference,
  parseReference,
  type Reference,
  referenceName,
  withDefaultTag,
  withDigest,
} from "@kiln/oci";
import { cut } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { NamedContext, NamedContextOptions } from "../compile/host.ts";
import { type Image, parseImage } from "../compile/image.ts";
import type { FrontendBackend } from "./backend.ts";
import type { FrontendConfig } from "./config.ts";
import { FALLBACK_PLATFORM } from "./config.ts";
import { type ContextFiles, parsePatterns } from "./context.ts";

/** Policies may point from one context to the next, but not for ever. */
const MAX_REDIRECTS = 10;

/** What a context turned out to be. */
interface Loaded {
  readonly state: State;
  readonly image: Image | undefined;
}

/** Everything that named contexts are loaded with. */
export interface NamedContextEnvironment {
  readonly backend: FrontendBackend;
  readonly config: FrontendConfig;
  readonly files: ContextFiles;
}

/** Finds a context by name: first for the platform, then for any. */
export function findNamedContext(
  environment: NamedContextEnvironment,
  name: string,
  options: NamedContextOptions,
): NamedContext | undefined {
  const short = familiarReference(readName(name)).replace(/:latest$/, "");
  const platform = options.platform ?? environment.backend.defaultPlatform ?? FALLBACK_PLATFORM;
  const special = `${short}::${formatPlatformAll(normalizePlatform(platform))}`;
  for (const key of [special, short]) {
    const value = environment.config.opts.get(`context:${key}`);
    if (value === undefined) continue;
    const loader = new Loader(environment, { name: short, key, options });
    return { load: () => loader.load(value, 0) };
  }
  return undefined;
}

function readName(name: string): Reference {
  try {
    return parseReference(name);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`invalid context name ${name}: ${error.message}`);
  }
}

interface Wanted {
  readonly name: string;
  /** The name with the platform, if that was what matched. */
  readonly key: string;
  readonly options: NamedContextOptions;
}

class Loader {
  readonly #environment: NamedContextEnvironment;
  readonly #wanted: Wanted;

  constructor(environment: NamedContextEnvironment, wanted: Wanted) {
    this.#environment = environment;
    this.#wanted = wanted;
  }

  async load(input: string, redirects: number): Promise<Loaded> {
    if (redirects > MAX_REDIRECTS) {
      throw new Problem(
        `context recursion limit exceeded; this may indicate a cycle in the provided source policies: ${input}`,
      );
    }
    const { key } = this.#wanted;
    const [scheme, rest, hasScheme] = cut(input, ":");
    if (!hasScheme) throw new Problem(`invalid context specifier ${input} for ${key}`);
    switch (scheme.startsWith("git@") ? "git" : scheme) {
      case "docker-image":
        return this.#image(rest.replace(/^\/\//, ""), redirects);
      case "git":
        return this.#git(input);
      case "http":
      case "https":
        return this.#web(input);
      case "oci-layout":
        return this.#ociLayout(rest.replace(/^\/\//, ""));
      case "local":
        return this.#local(rest);
      case "input":
        return this.#input(rest);
      default:
        throw new Problem(`unsupported context source ${scheme} for ${key}`);
    }
  }

  async #image(name: string, redirects: number): Promise<Loaded> {
    if (name === "scratch") return { state: scratch(), image: undefined };
    const { key, options } = this.#wanted;
    const { platform } = options;
    const answer = await this.#environment.backend.resolveImageConfig(
      formatReference(withDefaultTag(parseOrFail(name))),
      { platform, resolveMode: options.resolveMode, logName: `[context ${key}] load metadata for ${name}` },
    );
    if ("redirect" in answer) {
      const [scheme, rest, hasScheme] = cut(answer.redirect, "://");
      if (!hasScheme) throw new Problem(`could not parse ref: ${answer.redirect}`);
      return this.load(`${scheme}:${rest}`, redirects + 1);
    }
    const state = imageSource(answer.ref, { name: `[context ${key}] ${name}`, platform });
    return withConfig(state, answer.config);
  }

  #git(input: string): Loaded {
    const state = this.#environment.files.gitContext(input);
    if (state === undefined) throw new Problem(`invalid git context ${input}`);
    return { state, image: undefined };
  }

  #web(input: string): Loaded {
    const repository = this.#environment.files.gitContext(input);
    if (repository !== undefined) return { state: repository, image: undefined };
    const name = `[context ${this.#wanted.key}] ${input}`;
    return { state: http(input, { filename: "context", name }), image: undefined };
  }

  async #ociLayout(text: string): Promise<Loaded> {
    const { name, key, options } = this.#wanted;
    const { backend } = this.#environment;
    const ref = parseLayout(text);
    // Only messages show this name; the store knows the image by its digest.
    const shown = formatReference(withDigest(layoutName(name), ref.digest!));
    const store = { sessionId: backend.sessionId, storeId: referenceName(ref) };
    const answer = await backend.resolveImageConfig(shown, {
      platform: options.platform,
      logName: `[context ${key}] load metadata for ${shown}`,
      store,
    });
    if ("redirect" in answer) throw new Problem(`could not parse ref: ${answer.redirect}`);
    const state = ociLayout(shown, {
      name: `[context ${key}] OCI load from client`,
      store,
      platform: options.platform,
    });
    return withConfig(state, answer.config);
  }

  async #local(directory: string): Promise<Loaded> {
    const { key, options } = this.#wanted;
    const { files, config } = this.#environment;
    const data = await files.readIgnoreFile(directory, {
      sharedKeyHint: `context:${key}-.dockerignore`,
      name: `[context ${key}] load .dockerignore`,
      evaluate: true,
    });
    const excludePatterns = data === undefined ? [] : parsePatterns(data, ".dockerignore");
    const sharedKey = config.opts.get(`sharedkey:localdir:${key}`) ?? "";
    const output = new LazyOutput(
      () =>
        local(directory, {
          name: `[context ${key}] load from client`,
          sessionId: files.sessionOf(directory),
          sharedKeyHint: `context:${key}-${sharedKey}`,
          excludePatterns,
          followPaths: options.followPaths?.() ?? [],
        }).output,
    );
    return { state: State.of(output), image: undefined };
  }

  async #input(name: string): Promise<Loaded> {
    const { key } = this.#wanted;
    const { files, config } = this.#environment;
    const state = await files.input(name);
    if (state === undefined) throw new Problem(`invalid input ${name} for ${key}`);
    const metadata = config.opts.get(`input-metadata:${name}`);
    const bytes = metadata === undefined ? undefined : imageConfigOf(metadata);
    return bytes === undefined ? { state, image: undefined } : withConfig(state, bytes);
  }
}

function parseOrFail(name: string): Reference {
  try {
    return parseReference(name);
  } catch (error) {
    if (isBuildError(error)) throw new Problem(error.message);
    throw error;
  }
}

function parseLayout(text: string): Reference {
  let ref: Reference;
  try {
    ref = parseBareReference(text);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`could not parse oci-layout reference ${quoteGo(text)}: ${error.message}`);
  }
  if (ref.digest === undefined) throw new Problem(`oci-layout reference ${quoteGo(text)} has no digest`);
  return ref;
}

function layoutName(name: string): Reference {
  try {
    return parseReference(name);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`could not parse oci-layout reference ${quoteGo(name)}: ${error.message}`);
  }
}

function withConfig(state: State, config: Uint8Array): Loaded {
  const image = { ...parseImage(config), created: undefined };
  const { platform, config: own } = image;
  return {
    state: state.withImageConfig({
      ...platform,
      config: { Env: own.env, WorkingDir: own.workingDir },
    }),
    image,
  };
}

/** The image config in an input's metadata, which is JSON with base64 values. */
function imageConfigOf(metadata: string): Uint8Array | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(metadata);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Problem(`failed to parse input metadata ${metadata}: ${why}`);
  }
  const key = "containerimage.config";
  if (typeof parsed !== "object" || parsed === null || !Object.hasOwn(parsed, key)) return undefined;
  const value = (parsed as Record<string, unknown>)[key];
  const bytes = typeof value === "string" ? bytesFromBase64(value) : undefined;
  if (bytes !== undefined) return bytes;
  throw new BuildError("unknown", `failed to parse input metadata ${metadata}: not base64`);
}
