import type { Target } from "../fields/target.ts";
import { targetFields } from "../fields/target-fields.ts";
import { fail } from "../problem.ts";

const LINK = "target:";

/** Names of the targets whose results a target takes as contexts. */
export function linksOf(target: Target): string[] {
  const contexts = target.get(targetFields.contexts) ?? new Map<string, string>();
  return [...contexts.values()]
    .filter((value) => value.startsWith(LINK))
    .map((value) => value.slice(LINK.length));
}

/**
 * Adds the targets that others link to. Those that weren't asked for put their result into the cache only.
 * Entitlements go from a linked target to whoever links to it.
 */
export function loadLinks(targets: Map<string, Target>, resolve: (name: string) => Target): void {
  const finished = new Set<string>();
  for (const name of [...targets.keys()]) visit(name, { targets, resolve, finished, path: [] });
}

interface Walk {
  readonly targets: Map<string, Target>;
  readonly resolve: (name: string) => Target;
  readonly finished: Set<string>;
  readonly path: readonly string[];
}

function visit(name: string, walk: Walk): void {
  if (walk.finished.has(name)) return;
  const target = walk.targets.get(name)!;
  const path = [...walk.path, name];
  for (const link of linksOf(target)) {
    if (link === name) fail(`target ${link} cannot link to itself`);
    if (path.includes(link)) fail(`infinite loop from ${name} to ${link}`);
    const linked = walk.targets.get(link) ?? addLinked(link, walk);
    visit(link, { ...walk, path });
    inheritEntitlements(target, linked);
    checkPlatforms([name, target], [link, linked]);
  }
  walk.finished.add(name);
}

function addLinked(name: string, { targets, resolve }: Walk): Target {
  const linked = resolve(name);
  linked.set(targetFields.output, [{ type: "cacheonly", dest: "", attrs: new Map() }]);
  linked.linked = true;
  targets.set(name, linked);
  return linked;
}

function inheritEntitlements(target: Target, linked: Target): void {
  const theirs = linked.get(targetFields.entitlements) ?? [];
  if (theirs.length === 0) return;
  const mine = target.get(targetFields.entitlements) ?? [];
  target.set(targetFields.entitlements, [
    ...mine,
    ...theirs.filter((entitlement) => !mine.includes(entitlement)),
  ]);
}

function checkPlatforms(
  [name, target]: readonly [string, Target],
  [link, linked]: readonly [string, Target],
): void {
  const mine = target.get(targetFields.platforms) ?? [];
  const theirs = linked.get(targetFields.platforms) ?? [];
  if (mine.length <= 1 || theirs.length <= 1 || mine.every((platform) => theirs.includes(platform))) return;
  fail(
    `target ${link} can't be used by ${name} because its platforms [${mine.join(" ")}] are not a subset of [${theirs.join(" ")}]`,
  );
}
