import type { TargetField } from "./field.ts";

/** Where relative contexts of a target start, with `BUILDX_BAKE_FILE_RELATIVE_PATHS`. */
export interface ContextBase {
  /** Directory of the file that declares the target; for targets without a context of their own. */
  readonly fallback?: string;
  /** The fallback applies: no file of the target gives a context. */
  readonly useFallback: boolean;
  /** Directory of the file that gives the context. */
  readonly context?: string;
  /** The context is that of another target: `context = target.NAME.context`. */
  readonly reference?: string;
  readonly contexts: ReadonlyMap<string, string>;
}

const NO_BASE: ContextBase = { useFallback: false, contexts: new Map() };

/** One bake target: a name and the attributes that were given. */
export class Target {
  readonly name: string;
  readonly #values = new Map<string, unknown>();
  /** Pulled in by another target's context only. */
  linked = false;
  base: ContextBase = NO_BASE;

  constructor(name: string) {
    this.name = name;
  }

  get<T>(field: TargetField<T>): T | undefined {
    return this.#values.get(field.name) as T | undefined;
  }

  set<T>(field: TargetField<T>, value: T | undefined): void {
    if (value === undefined) this.#values.delete(field.name);
    else this.#values.set(field.name, value);
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** A copy that can be changed on its own. */
  clone(): Target {
    const copy = new Target(this.name);
    for (const [name, value] of this.#values) copy.#values.set(name, value);
    copy.linked = this.linked;
    copy.base = this.base;
    return copy;
  }

  /** Puts another target's attributes over this one's, each by its own rule. */
  merge(other: Target, fields: readonly TargetField<unknown>[]): void {
    this.base = mergeBases(this, other);
    for (const field of fields) {
      const theirs = other.get(field);
      if (theirs !== undefined) this.set(field, field.merge(this.get(field), theirs));
    }
  }
}

function mergeBases(mine: Target, theirs: Target): ContextBase {
  const [a, b] = [mine.base, theirs.base];
  if (a === NO_BASE && b === NO_BASE) return a;
  const contexts = new Map(a.contexts);
  for (const [name, base] of b.contexts) contexts.set(name, base);
  const own = theirs.has("context") ? b : a;
  const fallback = b.fallback === undefined ? a : b;
  return {
    contexts,
    useFallback: fallback.useFallback,
    ...(fallback.fallback === undefined ? {} : { fallback: fallback.fallback }),
    ...(own.context === undefined ? {} : { context: own.context }),
    ...(own.reference === undefined ? {} : { reference: own.reference }),
  };
}

/** A named list of targets and other groups. */
export interface Group {
  readonly name: string;
  readonly description: string;
  /** `undefined`: written as null. */
  readonly targets: readonly string[] | undefined;
}
