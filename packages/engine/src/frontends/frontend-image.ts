import { create } from "@bufbuild/protobuf";
import { type Definition, SourceOpSchema } from "@kiln/api/pb";
import { BuildError, errorMessage, wrapError } from "@kiln/base";
import { loadReplacedImage } from "@kiln/dockerfile";
import { definitionMessage, image } from "@kiln/llb";
import {
  formatReference,
  parseDigest,
  parseReference,
  referenceName,
  trimReference,
  withDefaultTag,
  withDigest,
} from "@kiln/oci";
import { backendOf, ProxyRefs } from "./dockerfile-frontend.ts";
import type { FrontendRequest } from "./frontend.ts";

const MAX_CONFIG_BYTES = 16 << 20;

/** Frontends that understand inputs but were built before their images said so (docker/dockerfile 1.1.6, 1.1.7). */
const KNOW_INPUTS: ReadonlySet<string> = new Set([
  "sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
  "sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
  "sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
  "sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
]);

/** The image that a frontend runs in. */
export interface FrontendImage {
  readonly definition: Definition;
  readonly env: readonly string[];
  readonly args: readonly string[];
  readonly cwd: string;
  readonly labels: ReadonlyMap<string, string>;
  /** What it says it can do. */
  readonly caps: ReadonlySet<string>;
}

/** The parts of an image's config that frontends are run by. */
interface RunConfig {
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly workingDir: string;
  readonly labels: ReadonlyMap<string, string>;
}

/**
 * Finds the image of a frontend: what the client names for it by a `context:` option, or one of a registry,
 * pinned to its digest.
 */
export async function findFrontendImage(request: FrontendRequest, source: string): Promise<FrontendImage> {
  const proxies = new ProxyRefs(request);
  try {
    const replaced = await loadReplacedImage(backendOf(request, proxies), source);
    if (replaced !== undefined) {
      return frontendImage(definitionMessage(replaced.definition), replaced.config ?? EMPTY, "");
    }
  } finally {
    await proxies.releaseRest();
  }
  return await registryImage(request, source);
}

const EMPTY: RunConfig = { env: [], entrypoint: [], workingDir: "", labels: new Map() };

async function registryImage({ bridge, signal }: FrontendRequest, source: string): Promise<FrontendImage> {
  const name = formatReference(withDefaultTag(parseReference(source)));
  const found = await bridge
    .resolveSourceMetadata(
      create(SourceOpSchema, { identifier: `docker-image://${name}` }),
      { platform: undefined, logName: "", resolveMode: "" },
      signal,
    )
    .catch((error: unknown) => {
      throw wrapError(error, `failed to resolve source metadata for ${name}`);
    });
  const { identifier } = found.source;
  if (found.image === undefined) {
    throw new BuildError("unknown", `ref mutated by policy to non-image: ${name} -> ${identifier}`);
  }
  const { digest, config } = found.image;
  const resolved = parseReference(identifier.replace(/^(?:docker-image|oci-layout):\/\//, ""));
  const pinned = digest === "" ? resolved : withDigest(resolved, parseDigest(digest));
  const state = image(formatReference(pinned), { recordType: "frontend" });
  return frontendImage(definitionMessage(state.marshal()), readConfig(config), digest);
}

function frontendImage(definition: Definition, config: RunConfig, digest: string): FrontendImage {
  const { env, entrypoint, workingDir, labels } = config;
  const caps = capNames(labels.get("moby.buildkit.frontend.caps") ?? "");
  if (KNOW_INPUTS.has(digest)) caps.add("moby.buildkit.frontend.inputs");
  return {
    definition,
    env,
    args: entrypoint.length === 0 ? ["/run"] : entrypoint,
    cwd: workingDir === "" ? "/" : workingDir,
    labels,
    caps,
  };
}

/** Names of a list of capabilities; what follows a `+` is advice. */
export function capNames(list: string): Set<string> {
  const names = list.split(",").map((cap) => cap.split("+", 1)[0] ?? "");
  return new Set(names.filter((name) => name !== ""));
}

/** @throws BuildError `invalid_argument` for a config that isn't one. */
function readConfig(bytes: Uint8Array): RunConfig {
  if (bytes.length > MAX_CONFIG_BYTES) throw new BuildError("invalid_argument", "image config is too large");
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to parse image config: ${errorMessage(error)}`);
  }
  const config = field(parsed, "config");
  const labels = field(config, "Labels");
  return {
    env: texts(field(config, "Env")),
    entrypoint: texts(field(config, "Entrypoint")),
    workingDir: String(field(config, "WorkingDir") ?? ""),
    labels: new Map(
      typeof labels === "object" && labels !== null
        ? Object.entries(labels).map(([key, value]) => [key, String(value)])
        : [],
    ),
  };
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

/** Repository of an image name, in full. @throws BuildError for what is no name. */
export function repositoryOf(name: string): string {
  return referenceName(trimReference(parseReference(name)));
}
