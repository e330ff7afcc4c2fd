/**
 * Keys of targets: what decides a build's result, in one hash, without running anything.
 *
 * 1. The Dockerfile is compiled to LLB by the frontend that the daemon has, with the target's arguments; base images
 *    stand for themselves by name, linked targets by their keys.
 * 2. Every directory of the client in it is replaced by the hash of the files that the daemon would ask for.
 * 3. The key is the digest of the changed LLB, with the image's config and what is added to the result.
 *
 * Where the frontend can't be run here, the whole context and the Dockerfile's text count instead.
 */
import { createHash } from "node:crypto";
import { posix, resolve } from "node:path";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, isBuildError } from "@kiln/base";
import { prefixed } from "@kiln/client";
import {
  type DecodedOp,
  type Definition,
  decodeDefinition,
  definitionMessage,
  linkDefinition,
} from "@kiln/llb";
import { readIgnoreFile } from "@kiln/patterns";
import { isHttpUrl, isRemoteUrl } from "../../build/remote-url.ts";
import { solveAttrs } from "../../build/solve-attrs.ts";
import type { FileView } from "./file-view.ts";
import {
  ForeignFrontend,
  type OfflineDir,
  type OfflineResult,
  RemoteFiles,
  runOffline,
} from "./offline-frontend.ts";
import { filesOf, hashOfFiles, type TreeFilter } from "./tree-hash.ts";

/** A target's key, with what it is made of for explanations. */
export interface TargetKey {
  readonly name: string;
  /** `sha256:…` */
  readonly key: string;
  /** Hash of the Dockerfile's text; undefined for one on another machine. */
  readonly dockerfile: string | undefined;
  /** Base images by name. */
  readonly images: readonly string[];
  /** The files that count, by a path that people know, with their hashes. */
  readonly files: ReadonlyMap<string, string>;
  /** Keys of the targets that this one links to, by name. */
  readonly links: ReadonlyMap<string, string>;
  /** The attributes that may be in the key, as texts by `args.NAME` and the like. */
  readonly attributes: ReadonlyMap<string, string>;
  /** Attributes that aren't in the key and yet make a build worth it: tags and outputs. */
  readonly results: ReadonlyMap<string, string>;
  /** Why the whole context counts, if it does. */
  readonly note: string | undefined;
}

/** What keys are computed with. */
export interface KeyOptions {
  readonly view: FileView;
  readonly cwd: string;
  readonly localPlatform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

const VERSION = "kiln.bake.key.v1";
/** Linked targets stand in the LLB as an image of this name. */
const LINK_IMAGE = "key.kiln.invalid/target";
const CONTEXT_NAMES = ["context", "dockerfile"];
const NO_FILTER: TreeFilter = { include: [], exclude: [], followPaths: [] };

/** The keys of all requests. @throws BuildError, with the target's name, for what can't be built. */
export async function targetKeys(
  requests: readonly BuildRequest[],
  options: KeyOptions,
): Promise<Map<string, TargetKey>> {
  const byName = new Map(requests.map((request) => [request.name, request]));
  const pending = new Map<string, Promise<TargetKey>>();
  const keyOf = (name: string): Promise<TargetKey> => {
    let key = pending.get(name);
    if (key === undefined) {
      const request = byName.get(name);
      if (request === undefined) throw new BuildError("not_found", `failed to find target ${name}`);
      key = new KeyMaker(request, options, keyOf).make();
      // Whoever waits for it gets the error.
      key.catch(() => undefined);
      pending.set(name, key);
    }
    return key;
  };
  const keys = new Map<string, TargetKey>();
  for (const { name } of requests) {
    try {
      keys.set(name, await keyOf(name));
    } catch (error) {
      throw isBuildError(error) ? prefixed(error, `target ${name}`) : error;
    }
  }
  return keys;
}

class KeyMaker {
  readonly #request: BuildRequest;
  readonly #options: KeyOptions;
  readonly #keyOf: (name: string) => Promise<TargetKey>;
  readonly #attrs = new Map<string, string>();
  /** Directories of the client by mount name. */
  readonly #dirs = new Map<string, string>();
  readonly #links = new Map<string, string>();
  readonly #files = new Map<string, string>();

  constructor(request: BuildRequest, options: KeyOptions, keyOf: (name: string) => Promise<TargetKey>) {
    this.#request = request;
    this.#options = options;
    this.#keyOf = keyOf;
  }

  async make(): Promise<TargetKey> {
    const request = this.#request;
    this.#addAttrs();
    const dockerfile = this.#placeDockerfile();
    await this.#addContexts();
    const dirs = new Map<string, OfflineDir>(
      [...this.#dirs].map(([name, dir]) => [
        name,
        { read: (path) => this.#options.view.readFile(posix.join(dir, posix.join("/", path))) },
      ]),
    );
    if (dockerfile.text !== undefined)
      dirs.set("dockerfile", { read: (path) => (path === "Dockerfile" ? dockerfile.text : undefined) });
    const compiled = await this.#compile(dirs);
    const content =
      "definitions" in compiled ? this.#contentOf(compiled) : this.#contentOfWhole(compiled.note, dockerfile);
    const key = digest([
      VERSION,
      content,
      attestsOf(request),
      annotationsOf(request),
      request.call?.name ?? "",
    ]);
    const text = dockerfile.text ?? dockerfile.read();
    return {
      name: request.name,
      key: `sha256:${key}`,
      dockerfile: text === undefined ? undefined : digest([Buffer.from(text).toString("latin1")]),
      images: "images" in compiled ? compiled.images.filter((name) => !name.startsWith(LINK_IMAGE)) : [],
      files: this.#files,
      links: this.#links,
      attributes: attributesOf(request),
      results: resultsOf(request),
      note: "note" in compiled ? compiled.note : compiled.hasUnknownVariables ? UNKNOWN_VARIABLES : undefined,
    };
  }

  async #compile(dirs: ReadonlyMap<string, OfflineDir>): Promise<OfflineResult | { readonly note: string }> {
    try {
      return await runOffline({ attrs: this.#attrs, dirs, buildPlatform: this.#options.localPlatform });
    } catch (error) {
      if (error instanceof RemoteFiles) return { note: "the context or the Dockerfile is remote" };
      if (error instanceof ForeignFrontend)
        return { note: `the frontend ${error.message} can't be run here` };
      throw error;
    }
  }

  #addAttrs(): void {
    const request = { ...this.#request, attests: [], pull: false, noCache: false, noCacheFilter: [] };
    const node = {
      caps: new Set<string>(),
      proxyArgs: new Map<string, string>(),
      hostGateway: "255.255.255.255",
    };
    const { attrs } = solveAttrs(request, node, { env: this.#options.env, spansNodes: false });
    // `BUILDKIT_SYNTAX` names a frontend; the Dockerfile frontend forwards to it in the same way.
    for (const [name, value] of attrs)
      if (name !== "source" && name !== "cmdline") this.#attrs.set(name, value);
  }

  /** Where the Dockerfile is; sets `filename` and the directory. */
  #placeDockerfile(): { readonly text: Uint8Array | undefined; readonly read: () => Uint8Array | undefined } {
    const { context, dockerfile, dockerfileInline } = this.#request;
    const { view, cwd } = this.#options;
    if (isRemoteUrl(context)) this.#attrs.set("context", context);
    else this.#addContextDir(context);
    if (dockerfileInline !== undefined) {
      this.#attrs.set("dockerfilekey", "dockerfile");
      return { text: new TextEncoder().encode(dockerfileInline), read: () => undefined };
    }
    if (isHttpUrl(dockerfile)) {
      this.#attrs.set("filename", dockerfile);
      return { text: undefined, read: () => undefined };
    }
    const isRemote = isRemoteUrl(context) && !dockerfile.startsWith("/");
    const path = resolve(cwd, dockerfile);
    this.#attrs.set("filename", isRemote ? dockerfile : posix.basename(path));
    if (isRemote) return { text: undefined, read: () => undefined };
    if (isRemoteUrl(context)) this.#attrs.set("dockerfilekey", "dockerfile");
    this.#dirs.set("dockerfile", posix.dirname(path));
    return { text: undefined, read: () => view.readFile(path) };
  }

  #addContextDir(context: string): void {
    const dir = resolve(this.#options.cwd, context);
    if (this.#options.view.kindOf(dir) !== "directory") {
      throw new BuildError(
        "not_found",
        `unable to prepare context: path ${JSON.stringify(context)} not found`,
      );
    }
    this.#dirs.set("context", dir);
  }

  async #addContexts(): Promise<void> {
    for (const [name, value] of this.#request.contexts) {
      const attr = `context:${name}`;
      if (value.startsWith("target:")) {
        const link = value.slice("target:".length);
        const { key } = await this.#keyOf(link);
        this.#links.set(link, key);
        this.#attrs.set(attr, `docker-image://${LINK_IMAGE}@${key}`);
      } else if (isRemoteUrl(value) || value.startsWith("docker-image://")) this.#attrs.set(attr, value);
      else if (value.startsWith("oci-layout://")) this.#addLayout(attr, value);
      else {
        const dir = resolve(this.#options.cwd, value);
        if (this.#options.view.kindOf(dir) !== "directory")
          throw new BuildError(
            "not_found",
            `failed to get build context ${name}: stat ${value}: no such file or directory`,
          );
        const mount = CONTEXT_NAMES.includes(name) ? `_${name}` : name;
        this.#dirs.set(mount, dir);
        this.#attrs.set(attr, `local:${mount}`);
      }
    }
  }

  /** A layout with a digest counts by that; one without by its index. */
  #addLayout(attr: string, value: string): void {
    const place = value.slice("oci-layout://".length);
    const at = place.lastIndexOf("@");
    const pinned = at < 0 ? undefined : place.slice(at + 1);
    const path = (at < 0 ? place : place.slice(0, at)).replace(/:[^/:]*$/, "");
    const index = this.#options.view.readFile(posix.join(resolve(this.#options.cwd, path), "index.json"));
    const id = pinned ?? `sha256:${digest([Buffer.from(index ?? []).toString("latin1"), place])}`;
    this.#attrs.set(attr, `oci-layout://layout@${id}`);
  }

  #contentOf(compiled: OfflineResult): unknown {
    const ignoresFilter = compiled.hasUnknownVariables;
    const platforms = [...compiled.definitions]
      .sort(byName)
      .map(([platform, definition]) => [
        platform,
        definition === undefined ? "" : this.#digestOf(definition, ignoresFilter),
        compiled.configs.get(platform) ?? "",
      ]);
    return [compiled.frontend, platforms];
  }

  #digestOf(definition: Definition, wholeContext: boolean): string {
    const decoded = decodeDefinition(definitionMessage(definition));
    for (const op of decoded.ops.values()) this.#replaceFiles(op, wholeContext);
    const { vertex, index } = linkDefinition(decoded);
    return `${vertex.digest}:${index}`;
  }

  #replaceFiles(decoded: DecodedOp, wholeContext: boolean): void {
    const { op } = decoded.op;
    if (op.case !== "source") return;
    const name = /^local:\/\/(.*)$/.exec(op.value.identifier)?.[1];
    if (name === undefined) return;
    const { attrs } = op.value;
    const filter = {
      include: patterns(attrs["local.includepattern"]),
      exclude: patterns(attrs["local.excludepatterns"]),
      followPaths: wholeContext ? [] : patterns(attrs["local.followpaths"]),
    };
    op.value.attrs = { "kiln.files": this.#hashOfDir(name, filter) };
    decoded.changed = true;
  }

  #hashOfDir(name: string, filter: TreeFilter): string {
    const dir = this.#dirs.get(name);
    if (dir === undefined)
      throw new BuildError("not_found", `no access allowed to dir ${JSON.stringify(name)}`);
    const files = filesOf(this.#options.view.tree(dir), filter);
    const shown = posix.relative(this.#options.cwd, dir);
    for (const [path, hash] of files) this.#files.set(posix.join(shown, path), hash);
    return hashOfFiles(files);
  }

  #contentOfWhole(
    note: string,
    dockerfile: { readonly text: Uint8Array | undefined; readonly read: () => Uint8Array | undefined },
  ): unknown {
    const text = dockerfile.text ?? dockerfile.read();
    const hashes = [...this.#dirs.keys()]
      .filter((name) => name !== "dockerfile")
      .sort()
      .map((name) => [name, this.#hashOfDir(name, this.#ignored(name))]);
    const attrs = [...this.#attrs].sort(byName);
    return [note, attrs, text === undefined ? "" : Buffer.from(text).toString("latin1"), hashes];
  }

  #ignored(name: string): TreeFilter {
    const dir = this.#dirs.get(name)!;
    const own =
      name === "context" ? `${resolve(this.#options.cwd, this.#request.dockerfile)}.dockerignore` : undefined;
    const data =
      (own === undefined ? undefined : this.#options.view.readFile(own)) ??
      this.#options.view.readFile(posix.join(dir, ".dockerignore"));
    if (data === undefined) return NO_FILTER;
    return { ...NO_FILTER, exclude: readIgnoreFile(new TextDecoder().decode(data)) };
  }
}

const UNKNOWN_VARIABLES = "the Dockerfile uses variables that are unknown without its base images";

function byName<T>([a]: readonly [string, T], [b]: readonly [string, T]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function patterns(text: string | undefined): readonly string[] {
  return text === undefined ? [] : (JSON.parse(text) as readonly string[]);
}

function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

function attestsOf({ attests }: BuildRequest): unknown {
  return attests.map(({ type, disabled, attrs }) => [type, disabled, [...attrs].sort(byName)]);
}

function annotationsOf({ annotations }: BuildRequest): unknown {
  return annotations.map(({ type, platform, key, value }) => [type, platform ?? "", key, value]);
}

/** Attributes by the names that people know them by; values are only compared. */
function attributesOf(request: BuildRequest): Map<string, string> {
  const out = new Map<string, string>();
  const set = (name: string, value: unknown): void => {
    out.set(name, JSON.stringify(value));
  };
  for (const [name, value] of request.args) set(`args.${name}`, value);
  for (const [name, value] of request.labels) set(`labels.${name}`, value);
  for (const [name, value] of request.contexts) set(`contexts.${name}`, value);
  set("annotations", annotationsOf(request));
  set("attest", attestsOf(request));
  set("call", request.call?.name ?? "");
  set("context", request.context);
  set("extra-hosts", request.extraHosts);
  set("network", request.network);
  set("platforms", request.platforms);
  set("resources", request.resources);
  set("shm-size", request.shmSizeBytes);
  set("target", request.target);
  set("ulimits", request.ulimits);
  return out;
}

function resultsOf({ tags, outputs }: BuildRequest): Map<string, string> {
  const shown = outputs.map(({ type, dest, attrs }) => [type, dest ?? "", [...attrs].sort(byName)]);
  return new Map([
    ["tags", JSON.stringify([...tags].sort())],
    ["output", JSON.stringify(shown)],
  ]);
}
