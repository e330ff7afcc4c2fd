import { sortedKeys } from "@kiln/hcl";
import type { ExtensionKind } from "../fields/field.ts";
import { type Group, Target } from "../fields/target.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";
import type { BakeFile, BakeHost } from "../host.ts";
import { fail, within } from "../problem.ts";
import { loadProject } from "./project.ts";
import type { ComposeService } from "./service.ts";
import { goText, isMap, type Tree, type TreeMap } from "./tree.ts";

const TARGET_NAME = /^[a-zA-Z0-9_-]+$/;

/** Makes targets of the services that are built, and a group of all. */
export function readCompose(
  files: readonly BakeFile[],
  environment: ReadonlyMap<string, string>,
  { host, unset }: { readonly host: BakeHost; readonly unset?: Set<string> },
): { readonly targets: readonly Target[]; readonly groups: readonly Group[] } {
  return within("failed to parse compose file", () => {
    const project = loadProject(files, host, {
      environment,
      consistent: true,
      ...(unset === undefined ? {} : { unset }),
    });
    if (!project.hasServices) return { targets: [], groups: [] };
    const targets = project.services.map(targetOf);
    const names = targets.map(({ name }) => name);
    const group = { name: "default", description: "", targets: names.length === 0 ? undefined : names };
    return { targets, groups: [group] };
  });
}

function targetOf(service: ComposeService): Target {
  const name = service.name.replaceAll(".", "_");
  if (!TARGET_NAME.test(name)) fail(`invalid service name "${name}": only "[a-zA-Z0-9_-]+" are allowed`);
  const target = new Target(name);
  for (const field of TARGET_FIELDS) target.set(field, field.compose?.(service.build));
  const extra = service.extensions.get("x-bake") ?? null;
  if (isMap(extra)) applyExtension(target, extra);
  else if (extra !== null) {
    const given = Array.isArray(extra) ? "!!seq" : `!!str \`${goText(extra)}\``;
    fail(`yaml: unmarshal errors:\n  line 1: cannot unmarshal ${given} into bake.xbake`);
  }
  const { image } = service.build;
  if (image !== "" && (target.get(targetFields.tags)?.length ?? 0) === 0)
    target.set(targetFields.tags, [image]);
  return target;
}

function applyExtension(target: Target, extra: TreeMap): void {
  const problems: string[] = [];
  let line = 1;
  for (const key of sortedKeys(extra)) {
    const value = extra.get(key)!;
    const field = TARGET_FIELDS.find(({ extension }) => extension?.key === key);
    const problem = field?.extension === undefined ? undefined : unsuitable(field.extension.holds, value);
    if (problem !== undefined)
      problems.push(`  line ${lineCount(value) > 1 ? line + 1 : line}: cannot unmarshal ${problem}`);
    else if (field !== undefined) target.set(field, field.extension?.apply(target.get(field), plain(value)));
    line += lineCount(value);
  }
  if (problems.length > 0) fail(`yaml: unmarshal errors:\n${problems.join("\n")}`);
}

/** Lines that a value takes in a YAML file. */
function lineCount(value: Tree): number {
  const items = isMap(value) ? [...value.values()] : Array.isArray(value) ? value : [];
  return (
    1 +
    items.reduce<number>(
      (sum, item) => sum + Math.max(lineCount(item) - (Array.isArray(value) ? 1 : 0), 1),
      0,
    )
  );
}

const SCALAR_TAGS = { string: "!!str", boolean: "!!bool", bigint: "!!int", number: "!!float" } as const;

function tagged(value: Tree): string {
  if (Array.isArray(value)) return "!!seq";
  if (value === null || isMap(value)) return "!!map";
  return `${SCALAR_TAGS[typeof value as keyof typeof SCALAR_TAGS]} \`${goText(value)}\``;
}

/** What can't be put where; `undefined` when it fits. */
function unsuitable(holds: ExtensionKind, value: Tree): string | undefined {
  if (value === null) return undefined;
  if (holds === "bool") return typeof value === "boolean" ? undefined : `${tagged(value)} into bool`;
  if (holds === "mapping" && !isMap(value)) return `${tagged(value)} into map[string]string`;
  if (holds === "texts" && isMap(value)) return "!!map into string";
  const items = isMap(value) ? [...value.values()] : Array.isArray(value) ? value : [];
  const nested = items.find((item) => isMap(item) || Array.isArray(item));
  return nested === undefined ? undefined : `${tagged(nested)} into string`;
}

/** JavaScript's own kinds of values. */
function plain(value: Tree): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  return isMap(value) ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)])) : value;
}
