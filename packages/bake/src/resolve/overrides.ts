import { errorMessage } from "@kiln/base";
import { matchPath } from "@kiln/patterns";
import type { ExportEntry } from "../fields/entries.ts";
import type { Grants, Override, OverrideRecord } from "../fields/field.ts";
import type { Target } from "../fields/target.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";
import { cut, fail, parseBool } from "../problem.ts";

/** Records by every spelling of their key, with the canonical one. */
const RECORDS = new Map<string, { readonly canonical: string; readonly record: OverrideRecord }>(
  TARGET_FIELDS.flatMap(({ override }) =>
    override === undefined
      ? []
      : override.keys.map((key) => [key, { canonical: override.keys[0]!, record: override }] as const),
  ),
);

/** For each target what `--set` says about it, by canonical key (`arg.NAME`). */
export type Overrides = ReadonlyMap<string, ReadonlyMap<string, Override>>;

/** Keys that aren't attributes. */
const SWITCHES = ["push", "load"];

/** Environment lookups for `--set target.args.NAME` without a value; `undefined` when they are switched off. */
export type LookupEnv = ((name: string) => string | undefined) | undefined;

/** Reads `PATTERN.KEY[.SUB][+]=VALUE`s against the names of all targets. */
export function parseOverrides(
  texts: readonly string[],
  names: readonly string[],
  lookupEnv: LookupEnv,
): Overrides {
  const known = new Set(names);
  const out = new Map<string, Map<string, Override>>();
  for (const text of texts) {
    const parsed = parseOverride(text, lookupEnv);
    for (const name of expandPattern(parsed.pattern, names, known)) {
      if (parsed.skip) continue;
      const overrides = out.get(name) ?? new Map<string, Override>();
      out.set(name, overrides);
      overrides.set(parsed.key, addOverride(overrides.get(parsed.key), parsed));
    }
  }
  return out;
}

interface ParsedOverride {
  readonly pattern: string;
  readonly key: string;
  readonly sub: string | undefined;
  readonly value: string | undefined;
  readonly append: boolean;
  readonly list: boolean;
  /** There is nothing to set: an argument that the environment doesn't have. */
  readonly skip: boolean;
}

function parseOverride(text: string, lookupEnv: LookupEnv): ParsedOverride {
  const [left, given] = cut(text, "=");
  const append = left.endsWith("+");
  const path = append ? left.slice(0, -1) : left;
  const [pattern, rest] = cut(path, ".");
  if (rest === undefined) fail(`invalid override key ${path}, expected target.name`);
  const [name, subText] = cut(rest, ".");
  const found = RECORDS.get(name);
  const canonical = found?.canonical ?? name;
  if (given === undefined && canonical !== "arg")
    fail(`invalid override ${text}, expected target.name=value`);
  const shape = found?.record.shape;
  if (shape === "named" && subText === undefined) fail(`invalid key ${left}, ${name} requires name`);
  if (name === "secrets" && subText !== undefined)
    fail(`invalid key ${left}, use secret.<id> to override a declared secret`);
  const named = shape === "named" || (shape === "both" && subText !== undefined);
  if (append && named && (canonical === "resource" || canonical === "secret")) {
    fail(`invalid key ${left}, ${name} does not support append`);
  }
  const value = given ?? lookupEnv?.(subText ?? "");
  return {
    pattern,
    key: subText === undefined ? canonical : `${canonical}.${subText}`,
    sub: subText,
    value,
    append,
    list: shape === "list" || (shape === "both" && subText === undefined),
    skip: given === undefined && value === undefined && lookupEnv !== undefined,
  };
}

function addOverride(before: Override | undefined, now: ParsedOverride): Override {
  const sub = now.sub === undefined ? {} : { sub: now.sub };
  if (now.list) {
    const values = [...(before?.values ?? []), ...(now.value === undefined ? [] : [now.value])];
    return { value: "", values, append: now.append, ...sub };
  }
  return { value: now.value ?? "", values: [], append: false, ...sub };
}

function expandPattern(
  pattern: string,
  names: readonly string[],
  known: ReadonlySet<string>,
): readonly string[] {
  if (known.has(pattern)) return [pattern];
  const matches = pattern === "*" ? names : names.filter((name) => matches1(pattern, name));
  if (matches.length === 0) fail(`could not find any target matching '${pattern}'`);
  return matches;
}

function matches1(pattern: string, name: string): boolean {
  try {
    return matchPath(pattern, name);
  } catch (error) {
    return fail(`could not match targets with '${pattern}': ${errorMessage(error)}`);
  }
}

/** Applies overrides to a target: attributes in the order given, then `push` and `load`. */
export function applyOverrides(
  target: Target,
  overrides: ReadonlyMap<string, Override>,
  grants: Grants,
): void {
  const late: [OverrideRecord, Override][] = [];
  for (const [key, override] of overrides) {
    const [name] = cut(key, ".");
    if (SWITCHES.includes(name)) continue;
    const found = RECORDS.get(name);
    if (found === undefined) fail(`unknown key: ${name}`);
    if (found.record.shape === "both" && override.sub !== undefined) late.push([found.record, override]);
    else found.record.apply(target, override, grants);
  }
  for (const [record, override] of late) record.apply(target, override, grants);
  for (const name of SWITCHES) {
    const override = overrides.get(name);
    if (override === undefined) continue;
    const on = parseBool(override.value) ?? fail(`invalid value ${override.value} for boolean key ${name}`);
    const outputs = target.get(targetFields.output);
    target.set(
      targetFields.output,
      name === "push" ? pushOutputs(outputs ?? [], on) : loadOutputs(outputs ?? [], on, outputs),
    );
  }
}

function withPush(entry: ExportEntry, push: boolean): ExportEntry {
  return entry.type === "image"
    ? { ...entry, attrs: new Map([...entry.attrs, ["push", String(push)]]) }
    : entry;
}

function pushOutputs(outputs: readonly ExportEntry[], push: boolean): ExportEntry[] {
  const changed = outputs.map((entry) => withPush(entry, push));
  if (!push) return changed.filter((entry) => entry.type !== "registry");
  if (changed.every((entry) => entry.type === "docker")) {
    changed.push({ type: "image", dest: "", attrs: new Map([["push", "true"]]) });
  }
  return changed;
}

function loadOutputs(
  outputs: readonly ExportEntry[],
  load: boolean,
  given: readonly ExportEntry[] | undefined,
): readonly ExportEntry[] | undefined {
  if (!load) return given;
  for (const { type, dest } of outputs) {
    if (type === "docker" && dest === "") return outputs;
    if (!["docker", "image", "registry", "oci"].includes(type)) return outputs;
  }
  return [...outputs, { type: "docker", dest: "", attrs: new Map() }];
}
