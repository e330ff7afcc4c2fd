import { isBuildError } from "@kiln/base";
import { csvFields, parseRamBytes, quoteGo, withSuggestion } from "@kiln/formats";
import { lower, parseBool } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { MountType, RunDevice, RunMount } from "./types.ts";

const TYPES: readonly MountType[] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING = ["shared", "private", "locked"] as const;
const KEYS =
  "type from source target readonly id sharing required size mode uid gid src dst destination ro rw readwrite env".split(
    " ",
  );

/** A mount under construction. */
type Draft = { -readonly [K in keyof RunMount]: RunMount[K] } & { readonlyGiven: boolean };

/**
 * Reads one `RUN --mount`. Without `expand` only `from` is read: the other values may hold variables, which
 * are known when the stage is compiled.
 */
export function parseMount(text: string, expand?: (word: string) => string): RunMount {
  const mount: Draft = {
    type: "bind",
    from: "",
    source: "",
    target: "",
    readonly: false,
    sizeBytes: 0,
    id: "",
    sharing: "",
    required: false,
    env: undefined,
    mode: undefined,
    uid: undefined,
    gid: undefined,
    readonlyGiven: false,
  };
  for (const field of fieldsOf(text, "mounts")) readField(mount, field, expand);
  checkMount(mount);
  if (!mount.readonlyGiven) mount.readonly = mount.type !== "cache" && mount.type !== "tmpfs";
  const { readonlyGiven: _, ...rest } = mount;
  return rest;
}

function fieldsOf(text: string, what: string): string[] {
  try {
    return csvFields(text);
  } catch (error) {
    if (isBuildError(error)) throw new Problem(`failed to parse csv ${what}: ${error.message}`);
    throw error;
  }
}

function readField(mount: Draft, field: string, expand: ((word: string) => string) | undefined): void {
  const equals = field.indexOf("=");
  const key = lower(equals < 0 ? field : field.slice(0, equals));
  if (equals < 0) {
    if (expand !== undefined) setBare(mount, key, field);
    return;
  }
  const raw = field.slice(equals + 1);
  if (expand !== undefined) setValue(mount, { key, field, value: expand(raw) });
  else if (key === "from") {
    const dollar = raw.indexOf("$");
    if (dollar >= 0 && dollar !== raw.length - 1) {
      throw new Problem(`'${key}' doesn't support variable expansion, define alias stage instead`);
    }
    mount.from = raw;
  }
}

function setBare(mount: Draft, key: string, field: string): void {
  switch (key) {
    case "readonly":
    case "ro":
    case "readwrite":
    case "rw":
      mount.readonly = key.startsWith("readonly") || key === "ro";
      mount.readonlyGiven = true;
      return;
    case "required":
      onlyFor(mount, key, ["secret", "ssh"]);
      mount.required = true;
      return;
    default:
      throw new Problem(`invalid field '${field}' must be a key=value pair`);
  }
}

function onlyFor(mount: Draft, key: string, types: readonly MountType[]): void {
  if (!types.includes(mount.type))
    throw new Problem(`unexpected key '${key}' for mount type '${mount.type}'`);
}

function setValue(mount: Draft, { key, field, value }: { key: string; field: string; value: string }): void {
  switch (key) {
    case "type":
      mount.type = oneOf(TYPES, value, "mount type");
      return;
    case "from":
      mount.from = value;
      return;
    case "source":
    case "src":
      mount.source = value;
      return;
    case "target":
    case "dst":
    case "destination":
      mount.target = value;
      return;
    case "readonly":
    case "ro":
    case "readwrite":
    case "rw": {
      const flag = boolean(key, value);
      mount.readonly = key === "readonly" || key === "ro" ? flag : !flag;
      mount.readonlyGiven = true;
      return;
    }
    case "required":
      onlyFor(mount, key, ["secret", "ssh"]);
      mount.required = boolean(key, value);
      return;
    case "size":
      onlyFor(mount, key, ["tmpfs"]);
      mount.sizeBytes = size(value);
      return;
    case "id":
      mount.id = value;
      return;
    case "sharing":
      mount.sharing = oneOf(SHARING, value, "sharing value");
      return;
    case "mode":
      mount.mode = unsigned(key, value, 8);
      return;
    case "uid":
    case "gid":
      mount[key] = unsigned(key, value, 10);
      return;
    case "env":
      mount.env = value;
      return;
    default:
      throw new Problem(withSuggestion(`unexpected key '${key}' in '${field}'`, key, KEYS, true));
  }
}

function oneOf<T extends string>(allowed: readonly T[], value: string, what: string): T {
  const found = allowed.find((option) => option === lower(value));
  if (found !== undefined) return found;
  throw new Problem(withSuggestion(`unsupported ${what} ${quoteGo(value)}`, value, allowed, true));
}

function boolean(key: string, value: string): boolean {
  const flag = parseBool(value);
  if (flag === undefined) throw new Problem(`invalid value for ${key}: ${value}`);
  return flag;
}

function size(value: string): number {
  try {
    return parseRamBytes(value);
  } catch (error) {
    if (isBuildError(error)) throw new Problem(`invalid value for size: ${value}`);
    throw error;
  }
}

function unsigned(key: string, value: string, radix: 8 | 10): number {
  const digits = radix === 8 ? /^[0-7]+$/ : /^[0-9]+$/;
  const number = digits.test(value) ? Number.parseInt(value, radix) : Number.NaN;
  if (number <= 0xffffffff) return number;
  throw new Problem(`invalid value ${value} for ${key}`);
}

function checkMount(mount: Draft): void {
  const { type } = mount;
  if (type === "bind" || type === "tmpfs") {
    for (const key of ["mode", "uid", "gid"] as const) {
      if (mount[key] !== undefined) throw new Problem(`${key} not allowed for "${type}" type mounts`);
    }
  }
  if (type === "secret") {
    if (mount.from !== "") throw new Problem("secret mount should not have a from");
    if (mount.sharing !== "") throw new Problem("secret mount should not define sharing");
    if (mount.source === "" && mount.target === "" && mount.id === "") {
      throw new Problem("invalid secret mount. one of source, target required");
    }
    if (mount.source !== "" && mount.id !== "") throw new Problem("both source and id can't be set");
  }
  if (mount.sharing !== "" && type !== "cache") {
    throw new Problem(`invalid cache sharing set for ${type} mount`);
  }
}

/** Reads one `RUN --device`. */
export function parseDevice(text: string): RunDevice {
  let name = "";
  let required = false;
  for (const field of fieldsOf(text, "devices")) {
    const equals = field.indexOf("=");
    const key = lower(equals < 0 ? field : field.slice(0, equals));
    if (equals < 0) {
      if (key === "required") required = true;
      else if (name === "") name = field;
      else throw new Problem(`invalid field '${field}' must be a key=value pair`);
      continue;
    }
    const value = field.slice(equals + 1);
    if (key === "required") required = boolean(key, value);
    else if (key === "name") {
      if (name !== "") throw new Problem(`device name already set to ${name}`);
      name = value;
    } else if (name === "") name = field;
    else {
      throw new Problem(
        withSuggestion(`unexpected key '${key}' in '${field}'`, key, ["name", "required"], true),
      );
    }
  }
  return { name, required };
}
