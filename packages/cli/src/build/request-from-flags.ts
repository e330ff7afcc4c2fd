import { arch } from "node:os";
import type { AnnotationOption, BuildRequest } from "@kiln/bake";
import { wrapError } from "@kiln/base";
import { parseRamBytes } from "@kiln/formats";
import { type FlagValues, parseGoBool, usageError } from "../command/flags.ts";
import { legacyResourceFlags } from "./build-flags.ts";
import {
  attestShorthand,
  callText,
  parseAnnotations,
  parseAttests,
  parseCaches,
  parseCall,
  parseContexts,
  parseEntitlements,
  parseExtraHost,
  parseKeyValues,
  parseOutput,
  parsePlatforms,
  parsePolicy,
  parseResources,
  parseSecret,
  parseSsh,
  parseUlimits,
} from "./parse-options.ts";

/** What `kiln build`'s command line asks for. */
export interface BuildLine {
  readonly request: BuildRequest;
  /** `--allow=buildx.local.delete`. */
  readonly allowsLocalDelete: boolean;
}

/** This machine as a platform. */
export function localPlatform(): string {
  const names: Record<string, string> = { x64: "amd64", ia32: "386", arm: "arm/v7" };
  const machine = arch();
  return `linux/${names[machine] ?? machine}`;
}

/** Reads `build`'s flags and its argument. */
export function requestFromFlags(
  flags: FlagValues,
  context: string,
  env: Readonly<Record<string, string | undefined>>,
): BuildLine {
  const { entitlements, allowsLocalDelete } = building(() => parseEntitlements(flags.list("allow")));
  const args = parseKeyValues(flags.list("build-arg"), env);
  if (!args.has("SOURCE_DATE_EPOCH") && env.SOURCE_DATE_EPOCH) {
    args.set("SOURCE_DATE_EPOCH", env.SOURCE_DATE_EPOCH);
  }
  const outputs = given(flags, "output").map(parseOutput);
  if (flags.string("iidfile") !== "" && outputs.some(({ type }) => type === "local" || type === "tar")) {
    throw usageError("local and tar exporters are incompatible with image ID file");
  }
  const call = parseCall(callText(flags));
  const noCacheFilter = given(flags, "no-cache-filter").flatMap((value) => value.split(","));
  const noCache = flags.bool("no-cache");
  if (noCache && noCacheFilter.length > 0) {
    throw usageError("failed to build: --no-cache and --no-cache-filter cannot currently be used together");
  }
  const request: BuildRequest = {
    name: "default",
    description: "",
    linked: false,
    context,
    dockerfile: flags.string("file"),
    contexts: parseContexts(flags.list("build-context")),
    remoteContexts: new Map(),
    localDockerfile: false,
    args,
    labels: parseKeyValues(flags.list("label")),
    tags: flags.list("tag"),
    platforms: building(() => parsePlatforms(platformTexts(flags, env), localPlatform())),
    outputs,
    cacheFrom: given(flags, "cache-from").flatMap(parseCaches),
    cacheTo: given(flags, "cache-to").flatMap(parseCaches),
    secrets: given(flags, "secret").map(parseSecret),
    ssh: given(flags, "ssh").map(parseSsh),
    attests: parseAttests(attestTexts(flags)),
    target: flags.string("target"),
    pull: flags.bool("pull"),
    noCache,
    noCacheFilter,
    network: flags.string("network"),
    shmSizeBytes: flags.string("shm-size") === "" ? 0 : parseRamBytes(flags.string("shm-size")),
    ulimits: parseUlimits(flags.list("ulimit")),
    resources: building(() => parseResources([...legacyResources(flags), ...flags.list("resource")])),
    entitlements,
    extraHosts: building(() => given(flags, "add-host").map(parseExtraHost)),
    annotations: building(() => annotationsOf(flags.list("annotation"))),
    policy: given(flags, "policy").map(parsePolicy),
    ...(call === undefined ? {} : { call }),
  };
  return { request, allowsLocalDelete };
}

/** Errors of these parts are told as the build's own. */
function building<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw wrapError(error, "failed to build");
  }
}

function annotationsOf(texts: readonly string[]): AnnotationOption[] {
  try {
    return parseAnnotations(texts);
  } catch (error) {
    throw wrapError(error, "parse annotations");
  }
}

function given(flags: FlagValues, name: string): string[] {
  return flags.list(name).filter((value) => value !== "");
}

function platformTexts(
  flags: FlagValues,
  env: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  if (flags.changed("platform")) return flags.list("platform");
  return env.DOCKER_DEFAULT_PLATFORM ? [env.DOCKER_DEFAULT_PLATFORM] : [];
}

function attestTexts(flags: FlagValues): string[] {
  const texts = [...flags.list("attest")];
  for (const type of ["provenance", "sbom"]) {
    const value = flags.string(type);
    if (value !== "") texts.push(attestShorthand(type, value));
  }
  return texts;
}

function legacyResources(flags: FlagValues): string[] {
  return legacyResourceFlags.flatMap(({ name }) => flags.list(name).map((value) => `${name}=${value}`));
}

/** A truth value of the environment: unset is undefined, another text an error that names the variable. */
export function envBool(
  env: Readonly<Record<string, string | undefined>>,
  name: string,
): boolean | undefined {
  const value = env[name];
  if (value === undefined || value === "") return undefined;
  try {
    return parseGoBool(value);
  } catch {
    throw usageError(`invalid ${name}: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`);
  }
}
