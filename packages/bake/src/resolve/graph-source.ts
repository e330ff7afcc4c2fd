import type { Group, Target } from "../fields/target.ts";
import { targetFields } from "../fields/target-fields.ts";
import type { GraphSource } from "../tools/graph.ts";
import type { Config } from "./config.ts";

/** What `--graph` draws: the chosen groups and targets, what they link to and what they inherit from. */
export function graphOf(
  config: Config,
  targets: ReadonlyMap<string, Target>,
  groups: ReadonlyMap<string, Group>,
): GraphSource {
  const names = new Set(targets.keys());
  for (const name of names) for (const parent of parentsOf(config, name)) names.add(parent);
  return {
    targets: [...names].map((name) => {
      const target = targets.get(name) ?? config.target(name);
      return {
        name,
        description: target?.get(targetFields.description) ?? "",
        platforms: target?.get(targetFields.platforms) ?? [],
        contexts: target?.get(targetFields.contexts) ?? new Map(),
        inherits: parentsOf(config, name),
        built: targets.has(name),
      };
    }),
    groups: [...groups.values()].map(({ name, description, targets: members }) => ({
      name,
      description,
      targets: members ?? [],
    })),
  };
}

function parentsOf(config: Config, name: string): readonly string[] {
  const parents = config.target(name)?.get(targetFields.inherits) ?? [];
  return [...new Set(parents)].filter((parent) => config.target(parent) !== undefined);
}
