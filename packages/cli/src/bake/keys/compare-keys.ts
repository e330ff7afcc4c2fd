/** What changed between two sets of keys, and why. */
import type { TargetKey } from "./target-key.ts";

/** Why a target would give something else. */
export type Reason =
  | { readonly kind: "new" }
  /** The revision can't be built: its definition or a Dockerfile has a mistake. */
  | { readonly kind: "before"; readonly message: string }
  /** Another target gave the same before. */
  | { readonly kind: "renamed"; readonly from: string }
  | { readonly kind: "file"; readonly path: string; readonly change: "added" | "removed" | "modified" }
  | { readonly kind: "dockerfile" }
  | { readonly kind: "image"; readonly now: readonly string[]; readonly before: readonly string[] }
  | { readonly kind: "target"; readonly name: string }
  /** `args.NAME`, `platforms`, `tags` … */
  | { readonly kind: "attribute"; readonly name: string }
  /** Something about the definition that has no name of its own, such as a stage's order. */
  | { readonly kind: "definition" };

/** A target and what happens to it. */
export interface TargetChange {
  readonly name: string;
  readonly change: "changed" | "removed" | "unchanged";
  /** The key now; of a removed target the one before. */
  readonly key: string;
  readonly reasons: readonly Reason[];
}

/** Compares keys; the result is in the order of names. */
export function compareKeys(
  now: ReadonlyMap<string, TargetKey>,
  before: ReadonlyMap<string, TargetKey>,
): TargetChange[] {
  const removed = [...before.values()].filter(({ name }) => !now.has(name));
  const changes = [...now.values()].map((target): TargetChange => {
    const { name, key } = target;
    const old = before.get(name);
    const reasons =
      old === undefined ? [newReason(target, removed)] : reasonsOf(target, old, { now, before });
    return { name, key, change: reasons.length === 0 ? "unchanged" : "changed", reasons };
  });
  for (const { name, key } of removed) changes.push({ name, key, change: "removed", reasons: [] });
  return changes.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function newReason({ key }: TargetKey, removed: readonly TargetKey[]): Reason {
  const same = removed.find((other) => other.key === key);
  return same === undefined ? { kind: "new" } : { kind: "renamed", from: same.name };
}

interface Sides {
  readonly now: ReadonlyMap<string, TargetKey>;
  readonly before: ReadonlyMap<string, TargetKey>;
}

function reasonsOf(target: TargetKey, old: TargetKey, { now, before }: Sides): Reason[] {
  const reasons: Reason[] = [];
  if (target.key !== old.key) {
    reasons.push(...attributeReasons(target.attributes, old.attributes));
    if (target.dockerfile !== old.dockerfile) reasons.push({ kind: "dockerfile" });
    if (target.images.join("\n") !== old.images.join("\n"))
      reasons.push({
        kind: "image",
        now: target.images.filter((image) => !old.images.includes(image)),
        before: old.images.filter((image) => !target.images.includes(image)),
      });
    for (const name of target.links.keys()) {
      if (now.get(name)?.key !== before.get(name)?.key) reasons.push({ kind: "target", name });
    }
    reasons.push(...fileReasons(target.files, old.files));
    if (reasons.length === 0) reasons.push({ kind: "definition" });
  }
  reasons.push(...attributeReasons(target.results, old.results));
  return reasons;
}

function attributeReasons(now: ReadonlyMap<string, string>, old: ReadonlyMap<string, string>): Reason[] {
  return [...new Set([...now.keys(), ...old.keys()])]
    .filter((name) => now.get(name) !== old.get(name))
    .sort()
    .map((name) => ({ kind: "attribute", name }));
}

function fileReasons(now: ReadonlyMap<string, string>, old: ReadonlyMap<string, string>): Reason[] {
  const reasons: Reason[] = [];
  for (const path of [...new Set([...now.keys(), ...old.keys()])].sort()) {
    const [mine, theirs] = [now.get(path), old.get(path)];
    if (mine === theirs) continue;
    const change = theirs === undefined ? "added" : mine === undefined ? "removed" : "modified";
    reasons.push({ kind: "file", path, change });
  }
  return reasons;
}
