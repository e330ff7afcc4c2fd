/** The values of `kiln build`'s flags, in Buildx's grammar and with its messages. */

import type {
  AnnotationOption,
  AttestOption,
  CacheOption,
  CallOption,
  OutputOption,
  PolicyOption,
  ResourceOption,
  SecretOption,
  SshOption,
  UlimitOption,
} from "@kiln/bake";
import { BuildError, errorMessage } from "@kiln/base";
import { csvFields, parseRamBytes, parseUlimit } from "@kiln/formats";
import { familiarReference, formatPlatform, parsePlatform, parseReference } from "@kiln/oci";
import { type FlagValues, parseGoBool, usageError } from "../command/flags.ts";

/** `--output`: a path, `-`, or `type=…,key=value`. */
export function parseOutput(text: string): OutputOption {
  const fields = csvFields(text);
  const first = fields[0] ?? "";
  if (fields.length === 1 && first === text && !text.startsWith("type=")) {
    return text === "-"
      ? { type: "tar", dest: "-", attrs: new Map() }
      : { type: "local", dest: text, attrs: new Map() };
  }
  let type = "";
  let dest: string | undefined;
  const attrs = new Map<string, string>();
  for (const field of fields) {
    const [key, value] = keyValue(field, () => `invalid value ${field}`);
    const name = key.toLowerCase().trim();
    if (name === "type") type = value;
    else if (name === "dest") dest = value;
    else attrs.set(name, value);
  }
  if (type === "") throw usageError("type is required for output");
  return { type, attrs, ...(dest === undefined ? {} : { dest }) };
}

/** `--secret id=…[,src=…][,env=…][,type=file|env]`. */
export function parseSecret(text: string): SecretOption {
  let [id, src, env, type] = ["", "", "", ""];
  for (const field of csvFields(text)) {
    const [key, value] = keyValue(field, () => `invalid field '${field}' must be a key=value pair`);
    const name = key.toLowerCase();
    if (name === "id") id = value;
    else if (name === "src" || name === "source") src = value;
    else if (name === "env") env = value;
    else if (name !== "type") throw usageError(`unexpected key '${name}' in '${field}'`);
    else if (value === "file" || value === "env") type = value;
    else throw usageError(`unsupported secret type ${JSON.stringify(value)}`);
  }
  if (type === "env" && env === "") [src, env] = ["", src];
  return { id, ...(src === "" ? {} : { src }), ...(env === "" ? {} : { env }) };
}

/** `--ssh default|id[=socket|key[,key…]]`. */
export function parseSsh(text: string): SshOption {
  const equals = text.indexOf("=");
  if (equals < 0) return { id: text, paths: [] };
  return { id: text.slice(0, equals), paths: text.slice(equals + 1).split(",") };
}

/** `--cache-from`, `--cache-to`: references, or `type=…,key=value`. */
export function parseCaches(text: string): CacheOption[] {
  if (!text.includes("=")) {
    return csvFields(text).map((ref) => ({ type: "registry", attrs: new Map([["ref", ref]]) }));
  }
  let type = "";
  const attrs = new Map<string, string>();
  for (const field of csvFields(text)) {
    const [key, value] = keyValue(field, () => `invalid value ${field}`);
    if (key.toLowerCase() === "type") type = value;
    else attrs.set(key.toLowerCase(), value);
  }
  if (type === "") throw usageError(`type required for ${JSON.stringify(text)}`);
  return [{ type, attrs }];
}

/** `--attest type=…`. */
export function parseAttest(text: string): AttestOption {
  let type = "";
  let disabled = false;
  const attrs = new Map<string, string>();
  for (const field of csvFields(text)) {
    const [key, value] = keyValue(field, () => `invalid value ${field}`);
    const name = key.toLowerCase().trim();
    if (name === "type") type = value;
    else if (name === "disabled") disabled = withContext(`invalid value ${field}`, () => parseGoBool(value));
    else attrs.set(key, value);
  }
  if (type === "") throw usageError("attestation type not specified");
  return { type, disabled, attrs };
}

/** `--provenance`, `--sbom`: a truth value, or the attestation's attributes. */
export function attestShorthand(type: string, value: string): string {
  try {
    return `type=${type},disabled=${!parseGoBool(value)}`;
  } catch {
    return `type=${type},${value}`;
  }
}

/** The attestations of all flags; of one type the last counts. */
export function parseAttests(texts: readonly string[]): AttestOption[] {
  const byType = new Map<string, AttestOption>();
  for (const text of texts) {
    const attest = parseAttest(text);
    byType.set(attest.type, attest);
  }
  return [...byType.values()];
}

/** `--allow`; `buildx.local.delete` is for the client alone. */
export function parseEntitlements(texts: readonly string[]): {
  entitlements: readonly string[];
  allowsLocalDelete: boolean;
} {
  let allowsLocalDelete = false;
  const entitlements: string[] = [];
  for (const text of texts) {
    if (text === "") continue;
    const name = text.split("=")[0] as string;
    if (name === "buildx.local.delete") {
      if (text !== name) throw usageError("buildx.local.delete does not accept a value");
      allowsLocalDelete = true;
    } else {
      checkEntitlement(text);
      entitlements.push(text);
    }
  }
  return { entitlements, allowsLocalDelete };
}

/** @throws BuildError for a text that is no entitlement. */
export function checkEntitlement(text: string): void {
  const name = text.split("=")[0] as string;
  const takesValue = name === "device";
  if (takesValue || ((name === "network.host" || name === "security.insecure") && text === name)) return;
  throw usageError(`unknown entitlement ${text}`);
}

/** `--call NAME[,format=…][,ignorestatus=…]`; undefined for a normal build. */
export function parseCall(text: string): CallOption | undefined {
  if (text === "") return undefined;
  let name = "";
  let format: string | undefined;
  let ignoreStatus = false;
  for (const field of csvFields(text)) {
    const [key, value] = splitPair(field);
    if (value === undefined) {
      if (name !== "") throw usageError(`invalid print value: ${text}`);
      name = field;
    } else if (key === "format") format = value;
    else if (key === "ignorestatus") {
      ignoreStatus = withContext(`invalid ignorestatus print value: ${value}`, () => parseGoBool(value));
    } else throw usageError(`invalid print field: ${field}`);
  }
  if (name === "build") return undefined;
  return {
    name: name === "check" ? "lint" : name,
    ignoreStatus,
    ...(format === undefined ? {} : { format }),
  };
}

/** The text of `--call`; `--check` is short for one, the last of them counts. */
export function callText(flags: FlagValues): string {
  return flags.lastOf("check", "call") === "check" && flags.bool("check") ? "check" : flags.string("call");
}

/** `--build-context name=value`; names are image references, shortened as Docker shows them. */
export function parseContexts(texts: readonly string[]): Map<string, string> {
  const contexts = new Map<string, string>();
  for (const text of texts) {
    if (text === "") continue;
    const [key, value] = keyValue(text, () => `invalid context value: ${text}, expected key=value`);
    const reference = withContext(`invalid context name ${key}`, () => parseReference(key));
    contexts.set(familiarReference(reference).replace(/:latest$/, ""), value);
  }
  return contexts;
}

/** `--annotation [type[platform],…:]key=value`. */
export function parseAnnotations(texts: readonly string[]): AnnotationOption[] {
  return texts.flatMap((text): AnnotationOption[] => {
    if (text === "") return [];
    const [name, value] = keyValue(
      text,
      () => `invalid annotation ${JSON.stringify(text)}, expected key=value`,
    );
    const colon = name.indexOf(":");
    if (colon < 0) return [{ type: "", key: name, value }];
    const key = name.slice(colon + 1);
    return name
      .slice(0, colon)
      .split(",")
      .map((part) => ({ ...annotationType(part), key, value }));
  });
}

function annotationType(text: string): Pick<AnnotationOption, "type" | "platform"> {
  const match = /^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$/.exec(text);
  if (match === null) {
    throw usageError(
      `invalid annotation type ${JSON.stringify(text)}, expected type and optional platform in square brackets`,
    );
  }
  const [, type, platform] = match;
  if (
    !(
      type === "index" ||
      type === "index-descriptor" ||
      type === "manifest" ||
      type === "manifest-descriptor"
    )
  ) {
    throw usageError(`unknown annotation type ${JSON.stringify(type)}`);
  }
  if (platform === undefined) return { type };
  return {
    type,
    platform: withContext(`invalid platform ${JSON.stringify(platform)}`, () =>
      formatPlatform(parsePlatform(platform)),
    ),
  };
}

/** `--policy filename=…,reset=…,disabled=…,strict=…,log-level=…`. */
export function parsePolicy(text: string): PolicyOption {
  const files: string[] = [];
  const policy: { reset: boolean; disabled: boolean; strict?: boolean; logLevel?: string } = {
    reset: false,
    disabled: false,
  };
  for (const field of csvFields(text)) {
    const invalid = `invalid value ${field}`;
    const [key, value] = keyValue(field, () => invalid);
    const name = key.toLowerCase().trim();
    if (name === "filename" && value !== "") files.push(value);
    else if (name === "log-level") policy.logLevel = value;
    else if (name === "reset" || name === "disabled" || name === "strict") {
      policy[name] = withContext(invalid, () => parseGoBool(value));
    } else throw usageError(invalid);
  }
  return { files, ...policy };
}

/** `--resource key=value`, later ones first in rank. */
export function parseResources(texts: readonly string[]): ResourceOption {
  const out: Record<string, number | string> = {};
  for (const text of texts) {
    if (text === "") continue;
    const [key, value] = keyValue(text, () => `invalid resource ${JSON.stringify(text)}, expected key=value`);
    const name = RESOURCE_NAMES.get(key);
    if (name === undefined) throw usageError(`unknown resource ${JSON.stringify(key)}`);
    out[name] = withContext(`invalid value ${JSON.stringify(value)} for resource ${key}`, () =>
      name.startsWith("cpuset") ? value : resourceNumber(name, value),
    );
  }
  return out as ResourceOption;
}

const RESOURCE_NAMES: ReadonlyMap<string, keyof ResourceOption> = new Map([
  ["memory", "memoryBytes"],
  ["memory-swap", "memorySwapBytes"],
  ["cpu-shares", "cpuShares"],
  ["cpu-period", "cpuPeriod"],
  ["cpu-quota", "cpuQuota"],
  ["cpuset-cpus", "cpusetCpus"],
  ["cpuset-mems", "cpusetMems"],
]);

function resourceNumber(name: string, value: string): number {
  if (name === "memorySwapBytes" && value === "-1") return -1;
  if (name.endsWith("Bytes")) return parseRamBytes(value);
  if (!/^-?\d{1,15}$/.test(value))
    throw usageError(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
  return Number(value);
}

/** `--ulimit name=soft[:hard]`; of one name the last counts. */
export function parseUlimits(texts: readonly string[]): UlimitOption[] {
  const limits = new Map<string, UlimitOption>();
  for (const text of texts) {
    const { name, soft, hard } = parseUlimit(text);
    limits.set(name, { name, soft: Number(soft), hard: Number(hard) });
  }
  return [...limits.values()];
}

/** `key=value` flags. A key alone takes the environment's value with `env`, else it's empty. */
export function parseKeyValues(
  texts: readonly string[],
  env?: Readonly<Record<string, string | undefined>>,
): Map<string, string> {
  const out = new Map<string, string>();
  for (const text of texts) {
    const [key, value] = splitPair(text);
    if (key === "") throw usageError(`invalid key-value pair ${JSON.stringify(text)}: empty key`);
    if (value !== undefined) out.set(key, value);
    else if (env === undefined) out.set(key, "");
    else if (env[key] !== undefined) out.set(key, env[key]);
  }
  return out;
}

/** `--platform`: a comma list; `local` is this machine. Duplicates are dropped. */
export function parsePlatforms(texts: readonly string[], local: string): string[] {
  const platforms = texts
    .flatMap((text) => text.split(","))
    .map((text) => text.trim())
    .map((text) => formatPlatform(parsePlatform(text === "local" ? local : text)));
  return [...new Set(platforms)];
}

/** `--add-host host:ip` or `host=ip`, as `host=ip`. */
export function parseExtraHost(text: string): string {
  const equals = text.indexOf("=");
  const at = equals >= 0 ? equals : text.indexOf(":");
  if (at <= 0 || at === text.length - 1) throw usageError(`invalid host ${text}`);
  return `${text.slice(0, at)}=${text.slice(at + 1)}`;
}

function splitPair(field: string): [key: string, value: string | undefined] {
  const equals = field.indexOf("=");
  return equals < 0 ? [field, undefined] : [field.slice(0, equals), field.slice(equals + 1)];
}

function keyValue(field: string, message: () => string): [key: string, value: string] {
  const [key, value] = splitPair(field);
  if (value === undefined) throw usageError(message());
  return [key, value];
}

function withContext<T>(context: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new BuildError("invalid_argument", `${context}: ${errorMessage(error)}`, { cause: error });
  }
}
