import { csvFields, formatCsvFields } from "@kiln/formats";
import {
  convert,
  listType,
  listValue,
  mapType,
  mapValue,
  marshalJson,
  mismatchMessage,
  Num,
  nullValue,
  numberType,
  numberValue,
  objectType,
  objectValue,
  quote,
  sortedKeys,
  stringType,
  stringValue,
  type Type,
  type Value,
} from "@kiln/hcl";
import { cut, fail, parseInteger, requireBool, within } from "../problem.ts";

export type Attrs = ReadonlyMap<string, string>;

export interface CacheEntry {
  readonly type: string;
  readonly attrs: Attrs;
}

export interface ExportEntry {
  readonly type: string;
  readonly dest: string;
  readonly attrs: Attrs;
}

export interface SecretEntry {
  readonly id: string;
  readonly src: string;
  readonly env: string;
}

export interface SshEntry {
  readonly id: string;
  readonly paths: readonly string[];
}

export interface AttestEntry {
  readonly type: string;
  readonly disabled: boolean;
  readonly attrs: Attrs;
}

export interface PolicyEntry {
  readonly files: readonly string[];
  readonly reset: boolean;
  readonly disabled: boolean;
  readonly strict?: boolean;
  readonly logLevel?: string;
}

const stringMap: Type = mapType(stringType);
const secretType = objectType(
  new Map([
    ["id", stringType],
    ["src", stringType],
    ["env", stringType],
  ]),
  new Set(["id", "src", "env"]),
);
const sshType = objectType(
  new Map<string, Type>([
    ["id", stringType],
    ["paths", listType(stringType)],
  ]),
  new Set(["id", "paths"]),
);

/** How one kind of list entry is read from values and text, and becomes a value again. */
export interface EntryKind<T> {
  /** What the list's elements are when a message says what is wanted. */
  readonly elementType: Type;
  readonly fromText: (text: string) => T | readonly T[];
  readonly fromValue: (value: Value) => T;
  readonly toValue: (entry: T) => Value;
}

/** Reads a list of entries; each may be an object or a text. Empty texts are left out. */
export function entriesFromValue<T>(kind: EntryKind<T>, value: Value): T[] {
  const want = listType(kind.elementType);
  if (value.type.kind !== "tuple" && value.type.kind !== "list") fail(mismatchMessage(value.type, want));
  const out: T[] = [];
  for (const element of value.elements) {
    if (!element.isKnown) continue;
    if (element.isNull) fail("null value is not allowed");
    if (element.type.kind !== "string") out.push(kind.fromValue(element));
    else if (element.string !== "") out.push(...asList(kind.fromText(element.string)));
  }
  return out;
}

function asList<T>(found: T | readonly T[]): readonly T[] {
  return Array.isArray(found) ? (found as readonly T[]) : [found as T];
}

/** Reads entries in their text form. Empty ones are left out. */
export function entriesFromTexts<T>(kind: EntryKind<T>, texts: readonly string[]): T[] {
  return texts.filter((text) => text !== "").flatMap((text) => asList(kind.fromText(text)));
}

/** The value of a list of entries, for references to it. */
export function entriesToValue<T>(kind: EntryKind<T>, entries: readonly T[] | undefined): Value {
  return listValue((entries ?? []).map(kind.toValue), kind.elementType);
}

function stringMembers(value: Value): Map<string, string> {
  const out = new Map<string, string>();
  const { members } = convert(value, stringMap);
  for (const key of sortedKeys(members)) {
    const member = members.get(key)!;
    if (!member.isKnown) continue;
    if (member.isNull) fail("null value is not allowed");
    out.set(key, member.string);
  }
  return out;
}

function take(members: Map<string, string>, key: string): string {
  const value = members.get(key) ?? "";
  members.delete(key);
  return value;
}

function memberMap(entries: Iterable<readonly [string, string]>): Value {
  return mapValue(new Map([...entries].map(([key, value]) => [key, stringValue(value)])), stringType);
}

function parseCache(text: string): CacheEntry | CacheEntry[] {
  if (!text.includes("=")) {
    return csvFields(text).map((field): CacheEntry => {
      const parts = csvFields(field);
      return { type: "registry", attrs: new Map([["ref", parts[0] ?? ""]]) };
    });
  }
  let type = "";
  const attrs = new Map<string, string>();
  for (const field of csvFields(text)) {
    const [key, value] = cut(field, "=");
    if (value === undefined) fail(`invalid value ${field}`);
    if (key.toLowerCase() === "type") type = value;
    else attrs.set(key.toLowerCase(), value);
  }
  if (type === "") fail(`type required for ${quote(text)}`);
  return { type, attrs };
}

/** `cache-from`, `cache-to`. */
export const cacheKind: EntryKind<CacheEntry> = {
  elementType: stringMap,
  fromText: parseCache,
  fromValue: (value) => {
    const attrs = stringMembers(value);
    const type = take(attrs, "type");
    if (type === "") fail(`type required for ${quote(marshalJson(value, value.type))}`);
    return { type, attrs };
  },
  toValue: ({ type, attrs }) => memberMap([...attrs, ["type", type]]),
};

function parseExport(text: string): ExportEntry {
  const fields = csvFields(text);
  if (fields.length === 1 && fields[0] === text && !text.startsWith("type=")) {
    return { type: text === "-" ? "tar" : "local", dest: text, attrs: new Map() };
  }
  let type = "";
  let dest = "";
  const attrs = new Map<string, string>();
  for (const field of fields) {
    const [key, value] = cut(field, "=");
    if (value === undefined) fail(`invalid value ${field}`);
    const name = key.toLowerCase().trim();
    if (name === "type") type = value;
    else if (name === "dest") dest = value;
    else attrs.set(name, value);
  }
  if (type === "") fail("type is required for output");
  return { type, dest, attrs };
}

/** `output`. */
export const exportKind: EntryKind<ExportEntry> = {
  elementType: stringMap,
  fromText: parseExport,
  fromValue: (value) => {
    const attrs = stringMembers(value);
    const type = take(attrs, "type");
    const dest = take(attrs, "dest");
    if (type === "") fail("type is required for output");
    return { type, dest, attrs };
  },
  toValue: ({ type, dest, attrs }) => memberMap([...attrs, ["type", type], ["dest", dest]]),
};

/** Reads `id=x,src=y`. */
export function parseSecret(text: string): SecretEntry {
  const secret = { id: "", src: "", env: "" };
  let type = "";
  for (const field of within("failed to parse csv secret", () => csvFields(text))) {
    const [name, value] = cut(field, "=");
    const key = name.toLowerCase();
    if (value === undefined) fail(`invalid field '${field}' must be a key=value pair`);
    if (key === "type") {
      if (value !== "file" && value !== "env") fail(`unsupported secret type ${quote(value)}`);
      type = value;
    } else if (key === "id") secret.id = value;
    else if (key === "source" || key === "src") secret.src = value;
    else if (key === "env") secret.env = value;
    else fail(`unexpected key '${key}' in '${field}'`);
  }
  if (type === "env" && secret.env === "") return { ...secret, env: secret.src, src: "" };
  return secret;
}

function textMember(value: Value, name: string): string {
  const member = value.members.get(name);
  return member === undefined || member.isNull || !member.isKnown ? "" : member.string;
}

/** `secret`. */
export const secretKind: EntryKind<SecretEntry> = {
  elementType: secretType,
  fromText: parseSecret,
  fromValue: (value) => {
    const object = convert(value, secretType);
    return { id: textMember(object, "id"), src: textMember(object, "src"), env: textMember(object, "env") };
  },
  toValue: ({ id, src, env }) =>
    objectValue(
      new Map([
        ["id", stringValue(id)],
        ["src", stringValue(src)],
        ["env", stringValue(env)],
      ]),
    ),
};

/** `ssh`. */
export const sshKind: EntryKind<SshEntry> = {
  elementType: sshType,
  fromText: (text) => {
    const [id, paths] = cut(text, "=");
    return { id, paths: paths === undefined ? [] : paths.split(",") };
  },
  fromValue: (value) => {
    const object = convert(value, sshType);
    const paths = object.members.get("paths");
    const elements = paths === undefined || paths.isNull || !paths.isKnown ? [] : paths.elements;
    return {
      id: textMember(object, "id"),
      paths: elements.map((path) => (path.isNull ? fail("null value is not allowed") : path.string)),
    };
  },
  toValue: ({ id, paths }) =>
    objectValue(
      new Map([
        ["id", stringValue(id)],
        ["paths", listValue(paths.map(stringValue), stringType)],
      ]),
    ),
};

function parseAttest(text: string): AttestEntry {
  let type = "";
  let disabled = false;
  const attrs = new Map<string, string>();
  for (const field of csvFields(text)) {
    const [key, value] = cut(field, "=");
    if (value === undefined) fail(`invalid value ${field}`);
    const name = key.toLowerCase().trim();
    if (name === "type") type = value;
    else if (name === "disabled") disabled = within(`invalid value ${field}`, () => requireBool(value));
    else attrs.set(key, value);
  }
  if (type === "") fail("attestation type not specified");
  return { type, disabled, attrs };
}

/** `attest`. */
export const attestKind: EntryKind<AttestEntry> = {
  elementType: stringMap,
  fromText: parseAttest,
  fromValue: (value) => {
    const attrs = stringMembers(value);
    const type = take(attrs, "type");
    const disabled = attrs.has("disabled") && requireBool(take(attrs, "disabled"));
    return { type, disabled, attrs };
  },
  toValue: ({ type, disabled, attrs }) => {
    const flag: [string, string][] = disabled ? [["disabled", "true"]] : [];
    return memberMap([...attrs, ["type", type], ...flag]);
  },
};

/** `--sbom=x` and `--provenance=x` as an attestation's text; "" for nothing. */
export function attestShorthand(type: string, value: string): string {
  if (value === "") return "";
  let disabled: boolean;
  try {
    disabled = !requireBool(value);
  } catch {
    return `type=${type},${value}`;
  }
  return `type=${type},disabled=${disabled}`;
}

const LOG_LEVELS = new Map([
  ["panic", "panic"],
  ["fatal", "fatal"],
  ["error", "error"],
  ["warn", "warning"],
  ["warning", "warning"],
  ["info", "info"],
  ["debug", "debug"],
  ["trace", "trace"],
]);

/** Reads a policy's `key=value` fields. */
export function parsePolicy(fields: readonly string[]): PolicyEntry {
  const files: string[] = [];
  const out: { reset: boolean; disabled: boolean; strict?: boolean; logLevel?: string } = {
    reset: false,
    disabled: false,
  };
  for (const field of fields) {
    const [key, value] = cut(field, "=");
    if (value === undefined) fail(`invalid value ${field}`);
    const flag = (): boolean => within(`invalid value ${field}`, () => requireBool(value));
    switch (key.toLowerCase().trim()) {
      case "filename":
        if (value === "") fail(`invalid value ${field}`);
        files.push(value);
        break;
      case "reset":
        out.reset = flag();
        break;
      case "disabled":
        out.disabled = flag();
        break;
      case "strict":
        out.strict = flag();
        break;
      case "log-level":
        out.logLevel =
          LOG_LEVELS.get(value.toLowerCase()) ??
          fail(`invalid value ${field}: not a valid logrus Level: ${quote(value)}`);
        break;
      default:
        fail(`invalid value ${field}`);
    }
  }
  return { files, ...out };
}

function policyField(key: string, value: Value): string {
  if (value.type.kind === "string") return `${key}=${value.string}`;
  if (value.type.kind === "bool") return `${key}=${value.isTrue}`;
  if (value.type.kind === "number") return `${key}=${value.number.toString()}`;
  return fail(mismatchMessage(value.type, stringType));
}

/** `policy`. */
export const policyKind: EntryKind<PolicyEntry> = {
  elementType: stringMap,
  fromText: (text) => parsePolicy(csvFields(text)),
  fromValue: (value) => {
    if (value.type.kind !== "object" && value.type.kind !== "map")
      fail(mismatchMessage(value.type, stringMap));
    const fields: string[] = [];
    for (const key of sortedKeys(value.members)) {
      const member = value.members.get(key)!;
      if (member.isNull || !member.isKnown || (member.type.kind === "string" && member.string === ""))
        continue;
      fields.push(policyField(key, member));
    }
    return parsePolicy(fields);
  },
  toValue: ({ files, reset, disabled, strict, logLevel }) => {
    const members: [string, string][] = [];
    if (files[0] !== undefined) members.push(["filename", files[0]]);
    if (reset) members.push(["reset", "true"]);
    if (disabled) members.push(["disabled", "true"]);
    if (strict !== undefined) members.push(["strict", String(strict)]);
    if (logLevel !== undefined) members.push(["log-level", logLevel]);
    return memberMap(members);
  },
};

const RESOURCE_TYPES = new Map<string, Type>([
  ["memory", stringType],
  ["memory-swap", stringType],
  ["cpu-shares", numberType],
  ["cpu-period", numberType],
  ["cpu-quota", numberType],
  ["cpuset-cpus", stringType],
  ["cpuset-mems", stringType],
]);

/** Names of resources, in the order in which they are printed. */
export const RESOURCE_NAMES: readonly string[] = [...RESOURCE_TYPES.keys()];

/** The type of the `resources` attribute. */
export const resourcesType = objectType(RESOURCE_TYPES, new Set(RESOURCE_NAMES));

export type Resources = ReadonlyMap<string, string | number>;

export function resourcesFromValue(value: Value): Resources {
  const object = convert(value, resourcesType);
  const out = new Map<string, string | number>();
  for (const name of RESOURCE_NAMES) {
    const member = object.members.get(name)!;
    if (member.isNull || !member.isKnown) continue;
    if (member.type.kind === "string") {
      out.set(name, member.string);
      continue;
    }
    const whole = member.number.isInteger ? parseInteger(member.number.toString()) : undefined;
    const range = `${-(2n ** 63n)} and ${2n ** 63n - 1n}`;
    out.set(name, whole ?? fail(`value must be a whole number, between ${range}`));
  }
  return out;
}

export function resourcesToValue(resources: Resources | undefined): Value {
  if (resources === undefined) return nullValue(resourcesType);
  return objectValue(
    new Map(
      [...RESOURCE_TYPES].map(([name, type]) => {
        const value = resources.get(name);
        if (value === undefined) return [name, nullValue(type)];
        return [name, typeof value === "number" ? numberValue(Num.fromInt(value)) : stringValue(value)];
      }),
    ),
  );
}

/** `--set target.resources.NAME=value`. */
export function setResource(resources: Resources | undefined, name: string, value: string): Resources {
  const type = RESOURCE_TYPES.get(name);
  if (type === undefined) fail(`unknown resources key ${name}`);
  const number = type.kind === "number";
  const parsed = number ? parseInteger(value) : value;
  return new Map(resources).set(
    name,
    parsed ?? fail(`invalid value ${value} for int64 key resources.${name}`),
  );
}

/** `type=x,key=value`: attributes sorted, fields quoted where they need it. */
export function csvText(first: Iterable<readonly [string, string]>, attrs: Attrs): string {
  const pairs = [...first, ...sortedKeys(attrs).map((key) => [key, attrs.get(key)!] as const)];
  return pairs.map(([key, value]) => formatCsvFields([`${key}=${value}`])).join(",");
}
