import { quote } from "@kiln/hcl";
import { matchPath } from "@kiln/patterns";
import type { Grants } from "../fields/field.ts";
import { type Group, Target } from "../fields/target.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";
import { isRemoteUrl, joinPath } from "../paths.ts";
import { fail } from "../problem.ts";
import { applyOverrides, type Overrides } from "./overrides.ts";

/** Groups and targets as the files declare them. The first group of a name counts. */
export class Config {
  readonly groups: Group[] = [];
  readonly targets: Target[] = [];
  readonly #targetsByName = new Map<string, Target>();
  readonly #groupsByName = new Map<string, Group>();

  target(name: string): Target | undefined {
    return this.#targetsByName.get(name);
  }

  group(name: string): Group | undefined {
    return this.#groupsByName.get(name);
  }

  /** Adds a target; one of the same name is merged with it. */
  addTarget(target: Target): void {
    const existing = this.#targetsByName.get(target.name);
    if (existing !== undefined) {
      existing.merge(target, TARGET_FIELDS);
      return;
    }
    this.#targetsByName.set(target.name, target);
    this.targets.push(target);
  }

  /** Adds a group; with `replace`, it takes the place of one of the same name. */
  addGroup(group: Group, replace: boolean): void {
    const existing = this.#groupsByName.get(group.name);
    if (existing !== undefined && replace) this.groups[this.groups.indexOf(existing)] = group;
    else this.groups.push(group);
    if (existing === undefined || replace) this.#groupsByName.set(group.name, group);
  }

  /** Names that a command line argument stands for. */
  matchNames(pattern: string): string[] {
    if (!/[*?[\]]/.test(pattern)) return [pattern];
    const names = [...this.groups, ...this.targets].map(({ name }) => name);
    const found = names.filter((name) => safeMatch(pattern, name));
    if (found.length === 0) fail(`could not find any target matching ${quote(pattern)}`);
    return found;
  }
}

function safeMatch(pattern: string, name: string): boolean {
  try {
    return matchPath(pattern, name);
  } catch {
    return false;
  }
}

interface Expanded {
  readonly targets: readonly string[];
  readonly groups: readonly string[];
}

/** The targets and groups behind a name. A group inside itself is cut. */
export function expandName(config: Config, name: string): Expanded {
  const { targets, groups } = expand(config, name, new Map());
  return { targets: [...new Set(targets)], groups: [...new Set(groups)] };
}

function expand(config: Config, name: string, visited: Map<string, Expanded>): Expanded {
  const seen = visited.get(name);
  if (seen !== undefined) return seen;
  const group = config.group(name);
  if (group === undefined) return { targets: [name], groups: [] };
  visited.set(name, { targets: [], groups: [] });
  const targets = new Set<string>();
  const groups = new Set([name]);
  for (const member of group.targets ?? []) {
    const inner = expand(config, member, visited);
    for (const target of inner.targets.length > 0 ? inner.targets : [member]) targets.add(target);
    for (const other of inner.groups) groups.add(other);
  }
  const result = { targets: [...targets], groups: [...groups] };
  visited.set(name, result);
  return result;
}

/** Resolves targets: inheritance, overrides, defaults. Ancestors are resolved once. */
export class Resolver {
  readonly #config: Config;
  readonly #overrides: Overrides;
  readonly #grants: Grants;
  readonly #complete = new Map<string, Target>();

  constructor(config: Config, overrides: Overrides, grants: Grants) {
    this.#config = config;
    this.#overrides = overrides;
    this.#grants = grants;
  }

  /** A target with everything it inherits, ready to be built. */
  resolve(name: string): Target {
    const resolved = this.#inherit(name, new Map());
    const target = (resolved.target ?? fail(`failed to find target ${name}`)).clone();
    target.set(targetFields.inherits, undefined);
    if (target.get(targetFields.context) === undefined) {
      const { fallback, useFallback } = target.base;
      target.set(targetFields.context, useFallback ? rebasePath(fallback ?? "", ".") : ".");
    }
    if ((target.get(targetFields.dockerfile) ?? "") === "") target.set(targetFields.dockerfile, "Dockerfile");
    return target;
  }

  /** `whole`: no cycle was cut, so the result is the same whoever asks. */
  #inherit(
    name: string,
    visited: Map<string, Target | undefined>,
  ): { readonly target: Target | undefined; readonly whole: boolean } {
    const known = this.#complete.get(name);
    if (known !== undefined) return { target: known, whole: true };
    if (visited.has(name)) {
      const target = visited.get(name);
      return { target, whole: false };
    }
    visited.set(name, undefined);
    const own = this.#config.target(name) ?? fail(`failed to find target ${name}`);
    const result = new Target(name);
    let whole = true;
    for (const parent of own.get(targetFields.inherits) ?? []) {
      const inherited = this.#inherit(parent, visited);
      whole &&= inherited.whole;
      if (inherited.target !== undefined) result.merge(inherited.target, TARGET_FIELDS);
    }
    result.merge(own, TARGET_FIELDS);
    // What was inherited is in the result now; the lists of all ancestors together could be huge.
    result.set(targetFields.inherits, undefined);
    const overrides = this.#overrides.get(name);
    if (overrides !== undefined) applyOverrides(result, overrides, this.#grants);
    normalize(result);
    visited.set(name, result);
    if (whole) this.#complete.set(name, result);
    return { target: result, whole };
  }
}

function normalize(target: Target): void {
  for (const field of TARGET_FIELDS) {
    if (field.name === "entitlements") continue;
    if (field.normalize !== undefined) target.set(field, field.normalize(target.get(field)));
  }
  const entitlements = target.get(targetFields.entitlements) ?? [];
  const host = target.get(targetFields.network) === "host" ? ["network.host"] : [];
  const all = targetFields.entitlements.normalize?.([...entitlements, ...host]);
  target.set(targetFields.entitlements, all);
}

/** A relative context as it looks from the working directory, when it belongs to a file in `base`. */
export function rebasePath(base: string, path: string): string {
  const special =
    ["cwd://", "target:", "docker-image:", "oci-layout://"].some((prefix) => path.startsWith(prefix)) ||
    isRemoteUrl(path);
  if (base === "" || path === "" || special || path.startsWith("/")) return path;
  return joinPath(base, path);
}

/** Makes contexts relative to the file that gives them, as `BUILDX_BAKE_FILE_RELATIVE_PATHS` asks. */
export function rebaseContexts(config: Config): void {
  const bases = config.targets.map((target) => {
    const referred = target.base.reference === undefined ? undefined : config.target(target.base.reference);
    return referred?.base.context ?? referred?.base.fallback ?? target.base.context;
  });
  for (const [i, target] of config.targets.entries()) {
    const context = target.get(targetFields.context);
    if (context === undefined)
      target.base = { ...target.base, useFallback: target.base.fallback !== undefined };
    else if (bases[i] !== undefined) target.set(targetFields.context, rebasePath(bases[i], context));
    const contexts = target.get(targetFields.contexts);
    if (contexts === undefined) continue;
    const rebased = [...contexts].map(([name, path]) => {
      const base = target.base.contexts.get(name);
      return [name, base === undefined ? path : rebasePath(base, path)] as const;
    });
    target.set(targetFields.contexts, new Map(rebased));
  }
}
