import { compareStrings } from "@kiln/hcl";
import { cut, fail } from "../problem.ts";
import { goText, goType, isMap, pathText, type Tree, type TreeMap, type TreePath } from "./tree.ts";

type Merger = (base: Tree, over: Tree, path: TreePath) => Tree;

/** A mapping or a text as a list of `KEY=VALUE`. */
function asSequence(value: Tree): Tree[] {
  if (Array.isArray(value)) return value;
  if (typeof value === "string") return [value];
  if (!isMap(value)) return [];
  const out: string[] = [];
  for (const [key, item] of value) {
    if (item === null) out.push(key);
    else for (const one of Array.isArray(item) ? item : [item]) out.push(`${key}=${goText(one)}`);
  }
  return out.sort(compareStrings);
}

const toSequence: Merger = (base, over) => [...asSequence(base), ...asSequence(over)];

const toUniqueSequence: Merger = (base, over) => {
  const mine = asSequence(base);
  return [...mine, ...asSequence(over).filter((item) => !mine.includes(item))];
};

const replace: Merger = (_base, over) => over;

function buildMapping(value: Tree): TreeMap {
  if (typeof value === "string") return new Map([["context", value]]);
  return isMap(value) ? value : new Map();
}

function namesMapping(item: () => Tree): Merger {
  const read = (value: Tree): TreeMap =>
    isMap(value) ? value : new Map((Array.isArray(value) ? value : []).map((name) => [goText(name), item()]));
  return (base, over, path) => mergeMappings(read(base), read(over), path);
}

const SERVICE_MERGERS: ReadonlyMap<string, Merger> = new Map<string, Merger>([
  ...[
    "annotations",
    "dns",
    "dns_opt",
    "dns_search",
    "env_file",
    "label_file",
    "environment",
    "labels",
    "sysctls",
    "tmpfs",
  ].map((name) => [name, toSequence] as const),
  ["build", (base, over, path) => mergeMappings(buildMapping(base), buildMapping(over), path)],
  ["command", replace],
  ["entrypoint", replace],
  ["extra_hosts", toUniqueSequence],
  [
    "depends_on",
    namesMapping(
      () =>
        new Map<string, Tree>([
          ["condition", "service_started"],
          ["required", true],
        ]),
    ),
  ],
  ["models", namesMapping(() => null)],
  ["networks", namesMapping(() => null)],
  ["logging", replace],
]);

const BUILD_MERGERS: ReadonlyMap<string, Merger> = new Map<string, Merger>([
  ["args", toSequence],
  ["additional_contexts", toSequence],
  ["labels", toSequence],
  ["extra_hosts", toUniqueSequence],
]);

function mergerAt(path: TreePath): Merger | undefined {
  const [root, , first, second] = path;
  if (path.length === 3 && root === "services") return SERVICE_MERGERS.get(first ?? "");
  if (path.length === 3 && (root === "networks" || root === "volumes"))
    return first === "labels" ? toSequence : undefined;
  if (path.length !== 4 || root !== "services") return undefined;
  if (first === "build") return BUILD_MERGERS.get(second ?? "");
  if (first === "deploy" && second === "labels") return toSequence;
  return (first === "healthcheck" && second === "test") || first === "ulimits" ? replace : undefined;
}

/** Puts one value over another as Compose merges files. */
export function mergeTrees(base: Tree, over: Tree, path: TreePath): Tree {
  const special = mergerAt(path);
  if (special !== undefined) return special(base, over, path);
  if (over === null) return base;
  if (isMap(base))
    return isMap(over) ? mergeMappings(base, over, path) : fail(`cannot override ${pathText(path)}`);
  if (Array.isArray(base))
    return Array.isArray(over) ? [...base, ...over] : fail(`cannot override ${pathText(path)}`);
  return over;
}

/** {@link mergeTrees} for mappings. */
export function mergeMappings(base: TreeMap, over: TreeMap, path: TreePath): TreeMap {
  const out: TreeMap = new Map(base);
  for (const [key, value] of over) {
    const mine = out.get(key);
    out.set(key, mine === undefined ? value : mergeTrees(mine, value, [...path, key]));
  }
  return out;
}

function keyOf(value: Tree, path: TreePath): string {
  if (typeof value !== "string") fail(`${pathText(path)}: unexpected type ${goType(value)}`);
  return cut(value, "=")[0];
}

function envFileKey(value: Tree, path: TreePath): string {
  if (typeof value === "string") return value;
  if (!isMap(value)) return "";
  const file = value.get("path");
  return typeof file === "string" ? file : fail(`environment path attribute ${pathText(path)} is missing`);
}

function onlyOnce(
  value: Tree | undefined,
  path: TreePath,
  key: (item: Tree, path: TreePath) => string,
): Tree | undefined {
  if (!Array.isArray(value)) return value;
  return [...new Map(value.map((item, i) => [key(item, [...path, `[${i}]`]), item])).values()];
}

function changeMembers(
  map: TreeMap,
  path: TreePath,
  changes: Readonly<Record<string, (item: Tree, path: TreePath) => string>>,
): TreeMap {
  const out: TreeMap = new Map(map);
  for (const [name, key] of Object.entries(changes)) {
    const changed = onlyOnce(out.get(name), [...path, name], key);
    if (changed !== undefined) out.set(name, changed);
  }
  return out;
}

/** Leaves the last of the entries that set the same thing. */
export function enforceUnicity(file: TreeMap): TreeMap {
  const services = file.get("services");
  if (!isMap(services)) return file;
  const out: TreeMap = new Map();
  for (const [name, service] of services) {
    if (!isMap(service)) {
      out.set(name, service);
      continue;
    }
    const path = ["services", name];
    const changed = changeMembers(service, path, {
      annotations: keyOf,
      environment: keyOf,
      env_file: envFileKey,
      labels: keyOf,
      profiles: keyOf,
    });
    const build = changed.get("build");
    if (isMap(build)) {
      const unique = changeMembers(build, [...path, "build"], {
        args: keyOf,
        additional_contexts: keyOf,
        tags: keyOf,
        labels: keyOf,
      });
      changed.set("build", unique);
    }
    out.set(name, changed);
  }
  return new Map([...file, ["services", out]]);
}
