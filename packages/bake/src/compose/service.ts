import { errorMessage, isBuildError } from "@kiln/base";
import { parseRamBytes } from "@kiln/formats";
import { decodeSource, sortedKeys } from "@kiln/hcl";
import type { BakeHost } from "../host.ts";
import { cut, fail, parseInteger, within } from "../problem.ts";
import { parseDotEnv } from "./dotenv.ts";
import { castBool } from "./interpolate.ts";
import type { ComposeBuild, ComposeSecret } from "./model.ts";
import { notingLookup } from "./template.ts";
import { goText, goType, isMap, mapAt, type Tree, type TreeMap } from "./tree.ts";

/** What a project offers to its services. */
export interface ServiceContext {
  /** Collects names of variables that aren't set. */
  readonly unset?: Set<string>;
  readonly host: BakeHost;
  readonly environment: ReadonlyMap<string, string>;
  readonly secrets: TreeMap;
}

/** A service that is built. */
export interface ComposeService {
  readonly name: string;
  readonly build: ComposeBuild;
  /** The members of `build` that Compose leaves to others. */
  readonly extensions: ReadonlyMap<string, Tree>;
}

type NullableTexts = Map<string, string | null>;

/** `KEY=VALUE`s or a mapping; null for a name without a value. */
function keyValues(value: Tree | undefined): NullableTexts {
  if (isMap(value))
    return new Map([...value].map(([key, item]) => [key, item === null ? null : goText(item)]));
  if (!Array.isArray(value)) return new Map();
  return new Map(
    value.map((item) => {
      const [key, rest] = cut(goText(item), "=");
      if (/\s$/.test(key)) fail(`environment variable ${key} is declared with a trailing space`);
      return [key, rest ?? null];
    }),
  );
}

function labels(value: Tree | undefined): Map<string, string> {
  const pairs = Array.isArray(value) ? value.map((item) => cut(goText(item), "=")) : [...keyValues(value)];
  return new Map(pairs.map(([key, item]) => [key, item ?? ""]));
}

function extraHosts(value: Tree | undefined): Map<string, string[]> {
  const out = new Map<string, string[]>();
  if (isMap(value)) {
    for (const [name, item] of value)
      out.set(name, Array.isArray(item) ? item.map(goText) : [item === null ? "" : goText(item)]);
  } else if (Array.isArray(value)) {
    for (const item of value) {
      const line = goText(item);
      const separator = ["=", ":"].find((sign) => line.includes(sign));
      if (separator === undefined) fail(`invalid additional host, missing IP: ${line}`);
      const [name, addresses = ""] = cut(line, separator);
      out.set(name, [...(out.get(name) ?? []), ...addresses.split(",")]);
    }
  }
  for (const [name, addresses] of out) {
    if (name === "" || /[:=]/.test(name)) fail(`bad host name '${name}'`);
    out.set(
      name,
      addresses.map((address) => (/^\[.+\]$/.test(address) ? address.slice(1, -1) : address)),
    );
  }
  return out;
}

function text(value: Tree | undefined): string {
  return value === undefined || value === null ? "" : goText(value);
}

function texts(value: Tree | undefined): string[] {
  return Array.isArray(value) ? value.map(text) : [];
}

function bool(value: Tree | undefined): boolean {
  if (typeof value === "string") return castBool(value);
  return value === true;
}

function bytes(value: Tree | undefined): number {
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "string") return 0;
  return parseInteger(value) ?? parseRamBytes(value);
}

function whole(value: Tree | undefined): number {
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "string") return 0;
  return parseInteger(value) ?? fail(`strconv.Atoi: parsing "${value}": invalid syntax`);
}

/** A limit that is a single number has no soft and hard value of its own. */
function ulimits(value: Tree | undefined): { name: string; soft: number; hard: number }[] {
  if (!isMap(value)) return [];
  return sortedKeys(value).map((name) => {
    const limit = value.get(name);
    return {
      name,
      soft: isMap(limit) ? whole(limit.get("soft")) : 0,
      hard: isMap(limit) ? whole(limit.get("hard")) : 0,
    };
  });
}

function secretsOf(value: Tree | undefined, secrets: TreeMap): ComposeSecret[] {
  if (!Array.isArray(value)) return [];
  return value.map((item) => {
    const source = text(isMap(item) ? item.get("source") : item);
    const secret = mapAt(secrets, source);
    if (bool(secret?.get("external"))) fail(`unsupported external secret ${text(secret?.get("name"))}`);
    return { source, file: text(secret?.get("file")), environment: text(secret?.get("environment")) };
  });
}

/** The environment of a service: its own, over that of its `env_file`s. */
function serviceEnvironment(service: TreeMap, { host, environment, unset }: ServiceContext): NullableTexts {
  const own = keyValues(service.get("environment"));
  for (const [key, value] of own)
    if (value === null && environment.has(key)) own.set(key, environment.get(key)!);
  const fromFiles = new Map<string, string>();
  for (const [key, value] of own) if (value !== null) fromFiles.set(key, value);
  const files = service.get("env_file");
  for (const file of Array.isArray(files) ? files : []) {
    const path = text(isMap(file) ? file.get("path") : file);
    const required = isMap(file) && file.has("required") ? bool(file.get("required")) : true;
    const data = host.readFile(path);
    if (data === undefined) {
      if (required) fail(`env file ${path} not found: stat ${path}: no such file or directory`);
      continue;
    }
    const format = text(isMap(file) ? file.get("format") : undefined);
    if (format !== "") fail(`unsupported env_file format "${format}"`);
    within(`failed to read ${path}`, () =>
      parseDotEnv(
        decodeSource(data),
        fromFiles,
        notingLookup((name) => environment.get(name) ?? own.get(name) ?? undefined, unset),
      ),
    );
  }
  return new Map<string, string | null>([...fromFiles, ...own]);
}

function resolvedArgs(
  value: Tree | undefined,
  service: NullableTexts,
  context: ServiceContext,
): Map<string, string> {
  const out = new Map<string, string>();
  for (const [name, given] of keyValues(value)) {
    const resolved = given ?? service.get(name) ?? context.environment.get(name);
    if (resolved !== undefined && resolved !== null) out.set(name, resolved);
  }
  return out;
}

/** Runs `work` for one part of a service. */
function part<T>(name: string, path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!isBuildError(error)) throw error;
    const where = `'services[${name}].${path}'`;
    return fail(`decoding failed due to the following error(s):\n\n${where} ${errorMessage(error)}`);
  }
}

/** Reads a service; `undefined` when it isn't built. */
export function readService(
  name: string,
  service: TreeMap,
  context: ServiceContext,
): ComposeService | undefined {
  const environment = serviceEnvironment(service, context);
  const given = service.get("build");
  if (given === undefined || given === null) return undefined;
  if (!isMap(given)) return fail(`services.${name}.build: invalid type ${goType(given)} for build`);
  const get = (key: string): Tree | undefined => given.get(key);
  const read = <T>(key: string, how: (value: Tree | undefined) => T): T =>
    part(name, `build.${key}`, () => how(get(key)));
  const contexts = [...keyValues(get("additional_contexts"))].map(([key, item]): [string, string] => [
    key,
    item ?? "",
  ]);
  const build: ComposeBuild = {
    context: text(get("context")),
    dockerfile: text(get("dockerfile")),
    dockerfileInline: text(get("dockerfile_inline")),
    args: read("args", (value) => resolvedArgs(value, environment, context)),
    labels: labels(get("labels")),
    tags: texts(get("tags")),
    image: text(service.get("image")),
    target: text(get("target")),
    cacheFrom: texts(get("cache_from")),
    cacheTo: texts(get("cache_to")),
    noCache: read("no_cache", bool),
    pull: read("pull", bool),
    platforms: texts(get("platforms")),
    network: text(get("network")),
    ssh: isMap(get("ssh"))
      ? [...(get("ssh") as TreeMap)].map(([id, path]) => ({ id, path: text(path) }))
      : [],
    secrets: secretsOf(get("secrets"), context.secrets),
    shmSizeBytes: read("shm_size", bytes),
    ulimits: read("ulimits", ulimits),
    extraHosts: read("extra_hosts", extraHosts),
    additionalContexts: new Map(contexts),
    sbom: text(get("sbom")),
    provenance: text(get("provenance")),
  };
  return { name, build, extensions: new Map([...given].filter(([key]) => key.startsWith("x-"))) };
}
