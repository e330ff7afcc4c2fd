import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { gatewayCaps, llbCaps } from "@kiln/api";
import { OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type Definition, image, scratch } from "@kiln/llb";
import { type Digest, formatPlatformAll, onlyPlatform, parsePlatform, parseReference } from "@kiln/oci";
import type {
  FrontendBackend,
  FrontendRef,
  FrontendResult,
  ResolvedImage,
  ResolveImageOptions,
  SourceMetadata,
  SourceRequest,
  WarnOptions,
} from "../frontend/backend.ts";

/** What a case asks for. */
export interface GoldenCase {
  readonly id: string;
  /** Files of the context and the Dockerfile, by path. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly opts: Readonly<Record<string, string>>;
  /** Further local directories, as folders among the files. */
  readonly locals?: Readonly<Record<string, string>>;
  readonly inputs?: Readonly<Record<string, GoldenInput>>;
}

interface GoldenInput {
  readonly image?: string;
  /** Files over an empty file system, by path. */
  readonly scratch?: Readonly<Record<string, string>>;
}

/** Images of the registry that the answers were recorded with: an index and configs per profile. */
export type GoldenImages = Readonly<
  Record<string, { readonly index: Digest; readonly configs: Readonly<Record<string, string>> }>
>;

/** A warning as it arrived. */
export interface GoldenWarning extends WarnOptions {
  readonly vertex: string;
  readonly message: string;
}

/** A result that only remembers what it would be. */
export class GoldenRef implements FrontendRef {
  readonly definition: Definition;
  readonly #read: ReadFile | undefined;

  constructor(definition: Definition, read: ReadFile | undefined) {
    this.definition = definition;
    this.#read = read;
  }

  async readFile(path: string, range: { offset?: number; length?: number } = {}): Promise<Uint8Array> {
    const bytes = this.#file(path);
    const start = range.offset ?? 0;
    return bytes.slice(start, range.length === undefined ? undefined : start + range.length);
  }

  async statFile(path: string): Promise<{ size: number }> {
    return { size: this.#file(path).length };
  }

  #file(path: string): Uint8Array {
    const bytes = this.#read?.(path);
    if (bytes !== undefined) return bytes;
    throw new BuildError("unknown", `open ${path}: no such file or directory`);
  }
}

type ReadFile = (path: string) => Uint8Array | undefined;

const LANGUAGES =
  "node python golang ruby php rust openjdk eclipse-temurin maven gradle deno bun elixir erlang swift haskell sdk aspnet";
const SERVICES =
  "nginx postgres redis mysql mariadb mongo httpd caddy traefik rabbitmq haproxy elasticsearch keycloak wordpress";
const LABELLED =
  "ubi8 ubi9 ubi-minimal ubi8-minimal ubi9-minimal fedora rockylinux almalinux centos amazonlinux oraclelinux";

/** Which kind of image the registry makes of a name. */
function profileOf(name: string, tag: string): string {
  const last = name.slice(name.lastIndexOf("/") + 1);
  if (last.includes("onbuild") || tag.includes("onbuild")) return "onbuild";
  if (/distroless|nonroot|bitnami|chainguard|selenium/.test(name) || tag.includes("nonroot"))
    return "nonroot";
  if (LANGUAGES.split(" ").includes(last)) return "lang";
  if (SERVICES.split(" ").includes(last)) return "service";
  return LABELLED.split(" ").includes(last) ? "labelled" : "plain";
}

/** Stands in for the daemon that the answers were recorded with. */
export class GoldenBackend implements FrontendBackend {
  readonly opts: ReadonlyMap<string, string>;
  readonly sessionId: string;
  readonly workers = [{ id: "w", platforms: [parsePlatform("linux/amd64")] }];
  readonly caps = new Set(gatewayCaps.map(({ id }) => id));
  readonly llbCaps = new Set(llbCaps.map(({ id }) => id));
  readonly warnings: GoldenWarning[] = [];
  readonly #case: GoldenCase;
  readonly #images: GoldenImages;

  constructor(golden: GoldenCase, images: GoldenImages, request: string | undefined) {
    this.#case = golden;
    this.#images = images;
    const more: Record<string, string> =
      request === undefined
        ? {}
        : { requestid: request, "frontend.caps": "moby.buildkit.frontend.subrequests" };
    this.opts = new Map(Object.entries({ ...golden.opts, ...more }));
    const salt = request === undefined ? "" : "sub";
    const sum = createHash("sha256").update(`${golden.id}\0${salt}`).digest("hex");
    this.sessionId = `x${sum.slice(0, 24)}`;
  }

  async inputs(): Promise<ReadonlyMap<string, Definition>> {
    const platform = parsePlatform("linux/amd64");
    const found = new Map<string, Definition>();
    for (const [name, input] of Object.entries(this.#case.inputs ?? {})) {
      let state = input.image === undefined ? scratch() : image(input.image);
      for (const [path, text] of Object.entries(input.scratch ?? {}).sort()) {
        state = state.file({ kind: "mkfile", path, mode: 0o644, data: new TextEncoder().encode(text) });
      }
      found.set(name, state.marshal({ platform }));
    }
    return found;
  }

  async resolveImageConfig(ref: string, options: ResolveImageOptions): Promise<ResolvedImage> {
    const { path, tag, domain } = parseReference(ref);
    const profile = this.#images[profileOf(`${domain}/${path}`.replace(/^docker\.io\//, ""), tag ?? "")]!;
    const matcher = onlyPlatform(options.platform ?? parsePlatform("linux/amd64"));
    const platforms = Object.keys(profile.configs).map((name) => ({ name, platform: parsePlatform(name) }));
    const matching = platforms
      .filter(({ platform }) => matcher.match(platform))
      .sort((a, b) => (matcher.less(a.platform, b.platform) ? -1 : 1));
    const found = matching[0];
    if (found === undefined) {
      throw new BuildError(
        "unknown",
        `failed to resolve source metadata for ${ref}: no match for platform in manifest: not found`,
      );
    }
    return { ref, digest: profile.index, config: new TextEncoder().encode(profile.configs[found.name]!) };
  }

  async resolveSourceMetadata(source: SourceRequest): Promise<SourceMetadata> {
    if (/^(?:local|docker-image):/.test(source.identifier)) return {};
    throw new BuildError("unavailable", "no network");
  }

  async solve(request: {
    definition?: Definition | undefined;
    frontend?: string | undefined;
  }): Promise<FrontendResult> {
    if (request.frontend !== undefined) throw new BuildError("unimplemented", "no frontends");
    const definition = request.definition!;
    const metadata = new Map<string, Uint8Array>();
    if (definition.def.length === 0) return { metadata };
    return { ref: new GoldenRef(definition, this.#directory(definition)), metadata };
  }

  #directory(definition: Definition): ReadFile | undefined {
    const { op } = fromBinary(OpSchema, definition.def[0]!);
    if (op.case !== "source" || definition.def.length !== 2) return undefined;
    const name = /^local:\/\/(.*)$/.exec(op.value.identifier)?.[1];
    if (name === undefined) return undefined;
    const { files, locals } = this.#case;
    const folder = locals?.[name];
    if (folder !== undefined) return (path) => files.get(`${folder}/${path}`);
    if (name === "context" || name === "dockerfile") return (path) => files.get(path);
    throw new BuildError("not_found", `local directory "${name}" not found`);
  }

  warn(vertex: Digest, message: string, options: WarnOptions): void {
    this.warnings.push({ ...options, vertex, message });
  }
}

/** Name of a platform in {@link GoldenImages}. */
export const platformName = formatPlatformAll;
