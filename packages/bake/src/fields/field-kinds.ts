import {
  boolType,
  boolValue,
  listType,
  listValue,
  mapType,
  mapValue,
  nullValue,
  sortedKeys,
  stringType,
  stringValue,
  type Value,
} from "@kiln/hcl";
import { fail, parseBool } from "../problem.ts";
import { type EntryKind, entriesFromTexts, entriesFromValue, entriesToValue } from "./entries.ts";
import type { Grants, Json, Override, OverrideRecord, TargetField } from "./field.ts";
import type { Target } from "./target.ts";

/** What a record adds to the kind it is of. */
export type Extras<T> = Pick<TargetField<T>, "name" | "doc" | "example"> & Partial<TargetField<T>>;

/** Doubles `${` and `%{`, so that the printed text can be read back. */
export function escapeTemplate(text: string): string {
  return text.replaceAll(/[$%]\{/g, (mark) => `${mark[0]}${mark}`);
}

function text(value: Value): string {
  return value.isNull ? fail("null value is not allowed") : value.string;
}

/** A text that may be absent; "" counts as given. */
export function textField(extras: Extras<string>): TargetField<string> {
  const field: TargetField<string> = {
    type: stringType,
    decode: text,
    nullable: true,
    toValue: (value) => (value === undefined ? nullValue(stringType) : stringValue(value)),
    merge: (_mine, theirs) => theirs,
    print: (value) => value,
    override: {
      keys: [extras.name],
      shape: "scalar",
      apply: (target, { value }) => target.set(field, value),
    },
    schema: { type: ["string", "null"] },
    ...extras,
  };
  return field;
}

/** A bool that may be absent. */
export function boolField(extras: Extras<boolean>): TargetField<boolean> {
  const { name } = extras;
  const field: TargetField<boolean> = {
    type: boolType,
    decode: (value) => value.isTrue,
    nullable: true,
    toValue: (value) => (value === undefined ? nullValue(boolType) : boolValue(value)),
    merge: (_mine, theirs) => theirs,
    print: (value) => value,
    override: {
      keys: [name],
      shape: "scalar",
      apply: (target, { value }) =>
        target.set(field, parseBool(value) ?? fail(`invalid value ${value} for boolean key ${name}`)),
    },
    extension: { key: name, holds: "bool", apply: (mine, given) => extensionBool(given) ?? mine },
    schema: { type: ["boolean", "null"] },
    ...extras,
  };
  return field;
}

function extensionBool(given: unknown): boolean | undefined {
  if (given === null || given === undefined) return undefined;
  if (typeof given === "boolean") return given;
  return fail("yaml: unmarshal errors:\n  cannot unmarshal into bool");
}

/** The first of equal texts; empty ones are dropped. */
export function withoutDuplicates(texts: readonly string[]): string[] {
  return [...new Set(texts)].filter((item) => item !== "");
}

/** `x-bake` lists: a sequence, or a text split at blanks. */
export function extensionTexts(given: unknown): string[] {
  if (given === null || given === undefined) return [];
  if (typeof given === "string") return given.split(/\s+/).filter((part) => part !== "");
  if (Array.isArray(given)) {
    return given.map((item) => (item === null ? "" : typeof item === "object" ? badText() : String(item)));
  }
  return typeof given === "object" ? badText() : [String(given)].flatMap((part) => part.split(/\s+/));
}

function badText(): never {
  return fail("yaml: unmarshal errors:\n  cannot unmarshal !!map into string");
}

/** How a list of texts behaves. */
export interface TextsOptions extends Extras<readonly string[]> {
  readonly combine: "replace" | "append";
  readonly keys?: readonly string[];
  /** `--set` appends with and without `+`. */
  readonly alwaysAppend?: boolean;
  readonly escaped?: boolean;
  readonly onOverride?: (values: readonly string[], grants: Grants) => void;
}

/** A list of texts. */
export function textsField(options: TextsOptions): TargetField<readonly string[]> {
  const { combine, keys, alwaysAppend, escaped, onOverride, ...extras } = options;
  const type = listType(stringType);
  const override: OverrideRecord = {
    keys: keys ?? [extras.name],
    shape: "list",
    apply: (target, { values, append }, grants) => {
      const mine = append || alwaysAppend === true ? (target.get(field) ?? []) : [];
      target.set(field, [...mine, ...values]);
      onOverride?.(values, grants);
    },
  };
  const field: TargetField<readonly string[]> = {
    type,
    decode: (value) => value.elements.map(text),
    nullable: true,
    toValue: (value) =>
      value === undefined ? nullValue(type) : listValue(value.map(stringValue), stringType),
    merge: (mine, theirs) => (combine === "append" ? [...(mine ?? []), ...theirs] : theirs),
    normalize: (value) => (value === undefined ? undefined : withoutDuplicates(value)),
    print: (value) => (value.length === 0 ? undefined : escaped === true ? value.map(escapeTemplate) : value),
    override,
    schema: { type: ["array", "null"], items: { type: "string" } },
    ...extras,
  };
  return field;
}

/** A map from names to texts or null; nulls don't count when merging. */
export function nullableMapField(
  options: Extras<ReadonlyMap<string, string | null>> & { readonly keys: readonly string[] },
): TargetField<ReadonlyMap<string, string | null>> {
  const { keys, ...extras } = options;
  const type = mapType(stringType);
  const field: TargetField<ReadonlyMap<string, string | null>> = {
    type,
    decode: (value) =>
      new Map([...value.members].map(([key, member]) => [key, member.isNull ? null : member.string])),
    nullable: true,
    toValue: (value) => {
      if (value === undefined) return nullValue(type);
      const members = [...value].map(([key, item]): [string, Value] => [
        key,
        item === null ? nullValue(stringType) : stringValue(item),
      ]);
      return mapValue(new Map(members), stringType);
    },
    merge: (mine, theirs) => {
      const given = [...theirs].filter(([, item]) => item !== null);
      return given.length === 0 && mine === undefined ? undefined : new Map([...(mine ?? []), ...given]);
    },
    print: (value) =>
      value.size === 0
        ? undefined
        : new Map<string, Json>(
            [...value].map(([key, item]) => [key, item === null ? null : escapeTemplate(item)]),
          ),
    override: {
      keys,
      shape: "named",
      apply: (target, { sub, value }) =>
        target.set(field, new Map([...(target.get(field) ?? []), [sub ?? "", value]])),
    },
    schema: { type: ["object", "null"], additionalProperties: { type: ["string", "null"] } },
    ...extras,
  };
  return field;
}

/** How a list of entries behaves. */
export interface EntriesOptions<T> extends Extras<readonly T[]> {
  readonly kind: EntryKind<T>;
  readonly keys?: readonly string[];
  readonly combine: "replace" | "append";
  /** `--set` appends with and without `+`. */
  readonly alwaysAppend?: boolean;
  /** Makes entries unique: also applied when `--set` and `x-bake` append. */
  readonly unique: (entries: readonly T[]) => readonly T[];
  readonly toJson: (entry: T) => Json;
  readonly onOverride?: (entries: readonly T[], grants: Grants) => void;
  readonly entrySchema: Json;
  /** The key under `x-bake`. */
  readonly extensionKey?: string;
  /** What goes before a complaint about a value given with `--set`. */
  readonly complaint?: string;
}

/** A list of entries that are objects or texts. */
export function entriesField<T>(options: EntriesOptions<T>): TargetField<readonly T[]> {
  const {
    kind,
    keys,
    combine,
    alwaysAppend,
    unique,
    toJson,
    onOverride,
    entrySchema,
    extensionKey,
    complaint,
    ...extras
  } = options;
  const append = (mine: readonly T[] | undefined, more: readonly T[]): readonly T[] =>
    unique([...(mine ?? []), ...more]);
  const field: TargetField<readonly T[]> = {
    type: undefined,
    decode: (value) => entriesFromValue(kind, value),
    nullable: false,
    toValue: (value) => entriesToValue(kind, value),
    merge: (mine, theirs) => (combine === "append" ? append(mine, theirs) : theirs),
    normalize: (value) => (value === undefined || value.length === 0 ? undefined : unique(value)),
    print: (value) => (value.length === 0 ? undefined : value.map(toJson)),
    override: {
      keys: keys ?? [extras.name],
      shape: "list",
      apply: (target, override, grants) =>
        overrideEntries(
          { field, kind, append, always: alwaysAppend === true, complaint },
          target,
          override,
          (now) => onOverride?.(now, grants),
        ),
    },
    ...(extensionKey === undefined
      ? {}
      : {
          extension: {
            key: extensionKey,
            holds: "texts" as const,
            apply: (mine: readonly T[] | undefined, given: unknown) => {
              const texts = extensionTexts(given);
              return texts.length === 0 ? mine : append(mine, entriesFromTexts(kind, texts));
            },
          },
        }),
    schema: { type: "array", items: { oneOf: [{ type: "string" }, entrySchema] } },
    ...extras,
  };
  return field;
}

interface EntryOverride<T> {
  readonly field: TargetField<readonly T[]>;
  readonly kind: EntryKind<T>;
  readonly append: (mine: readonly T[] | undefined, more: readonly T[]) => readonly T[];
  readonly always: boolean;
  readonly complaint: string | undefined;
}

function overrideEntries<T>(
  how: EntryOverride<T>,
  target: Target,
  override: Override,
  done: (entries: readonly T[]) => void,
): void {
  const read = (): readonly T[] => entriesFromTexts(how.kind, override.values);
  const entries = how.complaint === undefined ? read() : prefixed(how.complaint, read);
  const now = override.append || how.always ? how.append(target.get(how.field), entries) : entries;
  target.set(how.field, now);
  done(now);
}

function prefixed<T>(prefix: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    return fail(`${prefix}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/**
 * Makes entries unique as Buildx does: from the end, an entry that equals a later one takes its place away by
 * moving the last entry there. The order that results is part of what `--print` shows.
 */
export function uniqueBySwap<T>(entries: readonly T[], same: (a: T, b: T) => boolean): T[] {
  const out = [...entries];
  for (let i = out.length - 2; i >= 0; i--) {
    for (let j = i + 1; j < out.length; j++) {
      if (!same(out[i]!, out[j]!)) continue;
      out[j] = out.at(-1)!;
      out.pop();
      break;
    }
  }
  return out;
}

/** Makes entries unique by a key; a later one replaces an earlier in its place. */
export function uniqueByKey<T>(entries: readonly T[], key: (entry: T) => string): T[] {
  return [...new Map(entries.map((entry) => [key(entry), entry])).values()];
}

/** True for maps with the same members. */
export function sameAttrs(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && sortedKeys(a).every((key) => a.get(key) === b.get(key));
}

/** A text; `undefined` for an empty one. */
export function nonEmpty(text: string): string | undefined {
  return text === "" ? undefined : text;
}

/** The members that have a value. */
export function given(map: ReadonlyMap<string, string | null>): Map<string, string> {
  return new Map([...map].flatMap(([key, item]) => (item === null ? [] : [[key, item] as const])));
}

/** A list with the texts of `x-bake` added. */
export function extendTexts(
  mine: readonly string[] | undefined,
  extra: unknown,
): readonly string[] | undefined {
  const texts = extensionTexts(extra);
  return texts.length === 0 ? mine : [...new Set([...(mine ?? []), ...texts])];
}
