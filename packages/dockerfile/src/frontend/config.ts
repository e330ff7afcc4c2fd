import { isBuildError } from "@kiln/base";
import { csvFields, parseUlimit, quoteGo } from "@kiln/formats";
import type { HostIp, LinuxResources, NetworkMode, ResolveMode, Ulimit } from "@kiln/llb";
import {
  formatReference,
  normalizePlatform,
  type Platform,
  parsePlatform,
  parseReference,
  withDefaultTag,
} from "@kiln/oci";
import { cut, lower, parseBool } from "../base/go-text.ts";
import { formatIp } from "../base/ip.ts";
import { Problem, wrapProblem } from "../base/problem.ts";
import type { BuildSettings } from "../compile/context.ts";
import { type LintConfig, parseLintOptions } from "../lint/linter.ts";
import type { CacheImport, FrontendBackend } from "./backend.ts";
import { parseLinuxResources } from "./linux-resources.ts";

/** A scanner for SBOMs. */
export interface SbomSettings {
  readonly generator: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** The settings of a request. */
export interface FrontendConfig {
  /** The request's options; some imply others. */
  readonly opts: Map<string, string>;
  /** For every platform. */
  readonly settings: BuildSettings;
  readonly targetPlatforms: readonly Platform[];
  /** Undefined: none; empty: all. */
  readonly ignoreCache: readonly string[] | undefined;
  readonly cacheImports: readonly CacheImport[];
  readonly lint: LintConfig | undefined;
  readonly sbom: SbomSettings | undefined;
}

/** Platform where nothing else is said. */
export const FALLBACK_PLATFORM: Platform = { os: "linux", architecture: "amd64" };

/** Reads the options of a request. Throws a problem for a bad one. */
export function readConfig(backend: FrontendBackend): FrontendConfig {
  const opts = new Map(backend.opts);
  checkRemoved(backend, opts);
  const targetPlatforms = (opts.get("platform") ?? "") === "" ? [] : platforms(opts.get("platform")!);
  const resolveMode = resolveModeOf(opts.get("image-resolve-mode") ?? "");
  const extraHosts = inside("failed to parse additional hosts", () => hosts(opts.get("add-hosts") ?? ""));
  const shmSize = inside("failed to parse shm size", () => int64(opts.get("shm-size") ?? ""));
  const ulimits = inside("failed to parse ulimit", () => limits(opts.get("ulimit") ?? ""));
  const linuxResources: LinuxResources | undefined = inside("failed to parse resource limits", () =>
    parseLinuxResources(opts),
  );
  const networkMode = networkOf(opts.get("force-network-mode") ?? "");
  const noCache = opts.get("no-cache");
  const multiPlatform = multiPlatformOf(opts, targetPlatforms);
  const cacheImports = cacheImportsOf(opts);
  const sbom = sbomOf(opts);
  const hostname = opts.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME");
  if (hostname) opts.set("hostname", hostname);
  const check = opts.get("build-arg:BUILDKIT_DOCKERFILE_CHECK");
  const lint =
    check === undefined
      ? undefined
      : inside("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK", () => parseLintOptions(check));
  return {
    opts,
    settings: {
      buildArgs: withPrefix(opts, "build-arg:"),
      labels: withPrefix(opts, "label:"),
      target: opts.get("target") ?? "",
      cacheNamespace: opts.get("build-arg:BUILDKIT_CACHE_MOUNT_NS") ?? "",
      cgroupParent: opts.get("cgroup-parent") ?? "",
      extraHosts,
      hostname: opts.get("hostname") ?? "",
      resolveMode,
      networkMode,
      gitAdvice: gitAdviceOf(opts),
      shmSize,
      ulimits,
      linuxResources,
      devices: [],
      targetPlatform: undefined,
      buildPlatforms: [buildPlatform(backend)],
      multiPlatform,
      allStages: false,
    },
    targetPlatforms,
    ignoreCache: noCache === undefined ? undefined : noCache === "" ? [] : noCache.split(","),
    cacheImports,
    lint,
    sbom,
  };
}

function checkRemoved(backend: FrontendBackend, opts: ReadonlyMap<string, string>): void {
  if (!backend.llbCaps.has("file.base")) {
    throw new Problem("needs BuildKit 0.5 or later: unknown API capability file.base");
  }
  if (opts.get("override-copy-image")) {
    throw new Problem('support for "override-copy-image" was removed in BuildKit 0.11');
  }
  if (parseBool(opts.get("build-arg:BUILDKIT_DISABLE_FILEOP") ?? "")) {
    throw new Problem('support for "BUILDKIT_DISABLE_FILEOP" build-arg was removed in BuildKit 0.11');
  }
}

function buildPlatform(backend: FrontendBackend): Platform {
  const first = backend.workers[0]?.platforms[0];
  return first ?? normalizePlatform(backend.defaultPlatform ?? FALLBACK_PLATFORM);
}

/** Runs `read`; problems and bad formats get `prefix`. */
function inside<T>(prefix: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (isBuildError(error)) throw new Problem(`${prefix}: ${error.message}`);
    throw wrapProblem(error, prefix);
  }
}

function platforms(text: string): Platform[] {
  return text
    .split(",")
    .map((part) =>
      inside(`failed to parse target platform ${part}`, () => normalizePlatform(parsePlatform(part))),
    );
}

function resolveModeOf(text: string): ResolveMode {
  if (text === "") return "default";
  if (text === "default" || text === "pull" || text === "local") return text;
  throw new Problem(`invalid image-resolve-mode: ${text}`);
}

function networkOf(text: string): NetworkMode {
  if (text === "") return "sandbox";
  if (text === "none" || text === "host" || text === "sandbox") return text;
  throw new Problem(`invalid netmode ${text}`);
}

function hosts(text: string): HostIp[] {
  if (text === "") return [];
  return csvFields(text).map((field) => {
    const [host, address, isPair] = cut(lower(field), "=");
    if (!isPair) throw new Problem(`invalid key-value pair ${field}`);
    const ip = formatIp(address);
    if (ip === undefined) throw new Problem(`failed to parse IP ${address}`);
    return { host, ip };
  });
}

function limits(text: string): Ulimit[] {
  return text === "" ? [] : csvFields(text).map(parseUlimit);
}

/** Go's `strconv.ParseInt`; 0 for nothing. */
function int64(text: string): bigint {
  if (text === "") return 0n;
  const number = /^[+-]?[0-9]{1,30}$/.test(text) ? BigInt(text.replace("+", "")) : undefined;
  if (number === undefined) throw new Problem(`strconv.ParseInt: parsing ${quoteGo(text)}: invalid syntax`);
  if (BigInt.asIntN(64, number) === number) return number;
  throw new Problem(`strconv.ParseInt: parsing ${quoteGo(text)}: value out of range`);
}

function multiPlatformOf(opts: Map<string, string>, targets: readonly Platform[]): boolean {
  const several = targets.length > 1;
  const arg = opts.get("build-arg:BUILDKIT_MULTI_PLATFORM");
  if (arg) opts.set("multi-platform", arg);
  const text = opts.get("multi-platform") ?? "";
  if (text === "") return several;
  const value = parseBool(text);
  if (value === undefined) throw new Problem(`invalid boolean value for multi-platform: ${text}`);
  if (!value && several) {
    throw new Problem("conflicting config: returning multiple target platforms is not allowed");
  }
  return value;
}

function gitAdviceOf(opts: ReadonlyMap<string, string>): boolean {
  const text = opts.get("build-arg:BUILDKIT_GIT_ADVICE") ?? "";
  if (text === "") return false;
  const value = parseBool(text);
  if (value !== undefined) return value;
  throw new Problem(
    `failed to parse build-arg:BUILDKIT_GIT_ADVICE: strconv.ParseBool: parsing ${quoteGo(text)}: invalid syntax`,
  );
}

function cacheImportsOf(opts: ReadonlyMap<string, string>): CacheImport[] {
  const imports: CacheImport[] = [];
  const json = opts.get("cache-imports") ?? "";
  if (json !== "") imports.push(...parseCacheImports(json));
  const refs = opts.get("cache-from") ?? "";
  if (refs !== "") {
    for (const ref of refs.split(",")) imports.push({ type: "registry", attrs: new Map([["ref", ref]]) });
  }
  return imports;
}

function parseCacheImports(json: string): CacheImport[] {
  const fail = (what: string): Problem => new Problem(`failed to unmarshal cache-imports: ${what}`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    // the engine's message quotes the text, which may hold keys of a cache
    throw fail(error instanceof SyntaxError ? "not JSON" : String(error));
  }
  if (!Array.isArray(parsed)) throw fail("not a list");
  return parsed.map((entry: unknown) => {
    if (typeof entry !== "object" || entry === null) throw fail("not an object");
    const fields = new Map(Object.entries(entry).map(([key, value]) => [lower(key), value as unknown]));
    const attrs = fields.get("attrs") ?? {};
    if (typeof attrs !== "object") throw fail("attributes aren't an object");
    return {
      type: String(fields.get("type") ?? ""),
      attrs: new Map(Object.entries(attrs as object).map(([key, value]) => [key, String(value)])),
    };
  });
}

/** Attestations by kind, from `attest:*` and `build-arg:BUILDKIT_ATTEST_*`. */
function attestations(opts: ReadonlyMap<string, string>): Map<string, string> {
  const found = new Map<string, string>();
  for (const [key, value] of opts) {
    for (const prefix of ["attest:", "build-arg:BUILDKIT_ATTEST_"]) {
      if (key.startsWith(prefix)) found.set(lower(key.slice(prefix.length)), value);
    }
  }
  return found;
}

function sbomOf(opts: ReadonlyMap<string, string>): SbomSettings | undefined {
  const found = attestations(opts);
  const read = new Map<string, Map<string, string>>();
  for (const [kind, text] of found) {
    const fields = text === "" ? [] : inside(`failed to parse ${kind}`, () => csvFields(text));
    read.set(kind, new Map(fields.map((field) => cut(field, "=")).map(([key, value]) => [key, value])));
  }
  for (const kind of read.keys()) {
    if (kind !== "sbom" && kind !== "provenance") {
      throw new Problem(`unknown attestation type ${quoteGo(kind)}`);
    }
  }
  const sbom = read.get("sbom");
  if (sbom === undefined) return undefined;
  const generator = sbom.get("generator") ?? "docker/buildkit-syft-scanner:stable-1";
  sbom.delete("generator");
  const ref = inside(`failed to parse sbom scanner ${generator}`, () => parseReference(generator));
  return { generator: formatReference(withDefaultTag(ref)), parameters: sbom };
}

/** Options whose key begins with `prefix`, without it. */
export function withPrefix(opts: ReadonlyMap<string, string>, prefix: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [key, value] of opts) if (key.startsWith(prefix)) found.set(key.slice(prefix.length), value);
  return found;
}
