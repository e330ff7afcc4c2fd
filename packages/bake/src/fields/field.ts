import type { Type, Value } from "@kiln/hcl";
import type { ComposeBuild } from "../compose/model.ts";
import type { RequestDraft, RequestHost } from "./request-draft.ts";
import type { Target } from "./target.ts";

/** JSON that `--print` writes. A `Map` is written in the order of its keys. */
export type Json =
  | null
  | string
  | number
  | boolean
  | readonly Json[]
  | ReadonlyMap<string, Json>
  | { readonly [key: string]: Json };

/** One `--set` for one target: all values given for its key. */
export interface Override {
  /** The last value; "" when only lists were given. */
  readonly value: string;
  readonly values: readonly string[];
  readonly append: boolean;
  /** What follows the key: `args.NAME`. */
  readonly sub?: string;
}

/** Paths that the user's own overrides introduce: they need no further permission. */
export interface Grants {
  readonly read: string[];
  readonly write: string[];
  networkHost: boolean;
  securityInsecure: boolean;
}

/** How `--set` reaches an attribute. */
export interface OverrideRecord {
  /** The canonical key first, then its other spellings. */
  readonly keys: readonly string[];
  /** `list`: values accumulate; `named`: `key.NAME=value`; `both`: with or without a name. */
  readonly shape: "scalar" | "list" | "named" | "both";
  readonly apply: (target: Target, override: Override, grants: Grants) => void;
}

/** What a key of `x-bake` holds. */
export type ExtensionKind = "bool" | "texts" | "mapping";

/** How a key of `x-bake` reaches an attribute. */
export interface ExtensionRecord<T> {
  readonly key: string;
  readonly holds: ExtensionKind;
  apply(mine: T | undefined, given: unknown): T | undefined;
}

/**
 * Everything there is to know about one attribute of a target: how it is read, merged, overridden, mapped from
 * Compose, printed, turned into a build request, and documented.
 */
export interface TargetField<T> {
  /** The name in HCL, in JSON and in `--print`. */
  readonly name: string;
  /** The type that values are converted to before `decode`; `undefined` when `decode` takes any. */
  readonly type: Type | undefined;
  /** Reads a known value that isn't null. */
  decode(value: Value): T;
  /** What null means; absent where null is refused. */
  readonly nullable: boolean;
  /** The value for references such as `target.a.tags`; of `undefined` too. */
  toValue(value: T | undefined): Value;
  /** This target's value with another's put over it. */
  merge(mine: T | undefined, theirs: T): T | undefined;
  /** Brings a resolved target's value in order. */
  normalize?(value: T | undefined): T | undefined;
  /** What `--print` shows; `undefined` for nothing. */
  print(value: T): Json | undefined;
  readonly override?: OverrideRecord;
  /** The value from a Compose service's `build`. */
  compose?(build: ComposeBuild): T | undefined;
  /** The key under `x-bake`, and how it changes the value. */
  readonly extension?: ExtensionRecord<T>;
  /** Puts the value into the build request, checking it. */
  request?(value: T, draft: RequestDraft, host: RequestHost): void;
  /** For the JSON schema. */
  readonly schema: Json;
  /** One sentence for the reference page. */
  readonly doc: string;
  /** A line of HCL for the reference page. */
  readonly example: string;
}
