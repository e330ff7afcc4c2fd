/**
 * Which nodes of a builder build which platforms.
 *
 * 1. No platform asked for: the first node.
 * 2. Every platform known to some node exactly: those nodes; only they are booted.
 * 3. Otherwise all nodes are booted and asked; then a compatible node will do (arm64 runs arm/v7), an exact match
 *    before others, a lower index before a higher one. What nobody builds goes to the first node, which may emulate.
 */
import type { BuildkitClient } from "@kiln/client";
import { onlyPlatform, type Platform, strictPlatform } from "@kiln/oci";
import { type BuilderNode, workerPlatforms } from "./builder.ts";
import type { BootOptions } from "./node-driver.ts";

/** A node, booted, and the platforms that it's to build; none means the daemon's own. */
export interface ResolvedNode {
  readonly node: BuilderNode;
  readonly client: BuildkitClient;
  readonly platforms: readonly Platform[];
}

/** Chooses and boots nodes. @throws the last node's error when none can be used. */
export async function resolveNodes(
  nodes: readonly BuilderNode[],
  platforms: readonly Platform[],
  opts: BootOptions = {},
): Promise<ResolvedNode[]> {
  const usable = withoutFailed(nodes);
  if (platforms.length === 0 || usable.length === 1) {
    const first = usable[0] as BuilderNode;
    return [{ node: first, client: await first.driver.boot(opts), platforms }];
  }
  const strict = assign(
    usable.map((node) => ({ node, platforms: node.platforms })),
    platforms,
    { isStrict: true },
  );
  if (strict) return bootAll(strict, opts);
  const booted = await bootAny(usable, opts);
  const known = await Promise.all(
    booted.map(async ({ node, client }) => {
      const workers = await client.listWorkers([], { signal: opts.signal });
      return { node, platforms: [...(node.stored.platforms ?? []), ...workers.flatMap(workerPlatforms)] };
    }),
  );
  return bootAll(assign(known, platforms, { isStrict: false }) ?? [], opts);
}

interface KnownNode {
  readonly node: BuilderNode;
  readonly platforms: readonly Platform[];
}

type Assignment = { readonly node: BuilderNode; readonly platforms: Platform[] };

function assign(
  nodes: readonly KnownNode[],
  platforms: readonly Platform[],
  opts: { readonly isStrict: boolean },
): Assignment[] | undefined {
  const chosen: Assignment[] = [];
  for (const platform of platforms) {
    const matcher = opts.isStrict ? strictPlatform(platform) : onlyPlatform(platform);
    let best: { node: BuilderNode; platform: Platform } | undefined;
    for (const candidate of nodes) {
      for (const offered of candidate.platforms) {
        if (!matcher.match(offered)) continue;
        if (!best || matcher.less(offered, best.platform)) best = { node: candidate.node, platform: offered };
      }
    }
    if (!best && opts.isStrict) return undefined;
    const node = best?.node ?? (nodes[0] as KnownNode).node;
    const known = chosen.find((assignment) => assignment.node === node);
    if (known) known.platforms.push(platform);
    else chosen.push({ node, platforms: [platform] });
  }
  return chosen;
}

function withoutFailed(nodes: readonly BuilderNode[]): BuilderNode[] {
  let failure: unknown = new Error("no valid drivers found");
  const usable = nodes.filter((node) => {
    try {
      return node.driver !== undefined && node.error === undefined;
    } catch (error) {
      failure = error;
      return false;
    }
  });
  if (usable.length > 0) return usable;
  throw nodes.at(-1)?.error ?? failure;
}

async function bootAll(assignments: readonly Assignment[], opts: BootOptions): Promise<ResolvedNode[]> {
  return Promise.all(
    assignments.map(async ({ node, platforms }) => ({
      node,
      platforms,
      client: await node.driver.boot(opts),
    })),
  );
}

async function bootAny(nodes: readonly BuilderNode[], opts: BootOptions): Promise<ResolvedNode[]> {
  const results = await Promise.allSettled(nodes.map((node) => node.driver.boot(opts)));
  const booted = results.flatMap((result, i) =>
    result.status === "fulfilled"
      ? [{ node: nodes[i] as BuilderNode, client: result.value, platforms: [] }]
      : [],
  );
  if (booted.length > 0) return booted;
  throw (results.at(-1) as PromiseRejectedResult).reason;
}
