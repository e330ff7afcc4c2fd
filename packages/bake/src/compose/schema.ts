import { compareStrings, sortedKeys } from "@kiln/hcl";
import { fail } from "../problem.ts";
import { isMap, pathText, type Tree, type TreeMap, type TreePath } from "./tree.ts";

type TypeName = "object" | "array" | "string" | "integer" | "number" | "boolean" | "null";

interface Shape {
  readonly types?: readonly TypeName[];
  readonly anyOf?: readonly Shape[];
  readonly members?: ReadonlyMap<string, Shape>;
  /** Members whose names fit; extensions (`x-…`) are always allowed with `open`. */
  readonly pattern?: readonly [names: RegExp, shape: Shape];
  readonly open?: boolean;
  readonly closed?: boolean;
  readonly required?: readonly string[];
  readonly items?: Shape;
  readonly unique?: boolean;
}

interface Problem {
  readonly path: TreePath;
  readonly message: string;
  /** How much it tells: the deepest problem is reported. */
  readonly weight: number;
}

const type = (...types: TypeName[]): Shape => ({ types });
const oneOf = (...anyOf: Shape[]): Shape => ({ anyOf });
const list = (items: Shape, unique = false): Shape => ({ types: ["array"], items, unique });
const text = type("string");
const texts = list(text);
const flag = type("boolean", "string");

function object(members: Readonly<Record<string, Shape>>, more: Shape = {}): Shape {
  return { types: ["object"], members: new Map(Object.entries(members)), closed: true, open: true, ...more };
}

function dictionary(names: RegExp, shape: Shape, closed = true): Shape {
  return { types: ["object"], pattern: [names, shape], closed };
}

const listOrMapping = oneOf(dictionary(/.+/, type("string", "number", "boolean", "null")), list(text, true));
const hosts = oneOf(dictionary(/.+/, oneOf(text, texts)), list(text, true));

const secretMounts = list(
  oneOf(text, object({ source: text, target: text, uid: text, gid: text, mode: type("number", "string") })),
);

const ulimits = dictionary(
  /^[a-z]+$/,
  oneOf(
    type("integer", "string"),
    object(
      { hard: type("integer", "string"), soft: type("integer", "string") },
      { required: ["soft", "hard"] },
    ),
  ),
  false,
);

const build = oneOf(
  text,
  object({
    context: text,
    dockerfile: text,
    dockerfile_inline: text,
    entitlements: texts,
    args: listOrMapping,
    ssh: listOrMapping,
    labels: listOrMapping,
    cache_from: texts,
    cache_to: texts,
    no_cache: flag,
    no_cache_filter: oneOf(text, list(text, true)),
    additional_contexts: listOrMapping,
    network: text,
    provenance: type("string", "boolean"),
    sbom: type("string", "boolean"),
    pull: flag,
    target: text,
    shm_size: type("integer", "string"),
    extra_hosts: hosts,
    isolation: text,
    privileged: flag,
    secrets: secretMounts,
    tags: texts,
    ulimits,
    platforms: texts,
  }),
);

const envFile = oneOf(
  text,
  list(
    oneOf(text, object({ path: text, format: text, required: flag }, { required: ["path"], open: false })),
  ),
);

const secret = object({
  name: text,
  environment: text,
  file: text,
  external: { ...type("boolean", "string", "object"), members: new Map([["name", text]]) },
  labels: listOrMapping,
  driver: text,
  driver_opts: dictionary(/^.+$/, type("string", "number"), false),
  template_driver: text,
});

const project = object({
  services: dictionary(
    /^[a-zA-Z0-9._-]+$/,
    object({ image: text, build, environment: listOrMapping, env_file: envFile }),
  ),
  secrets: dictionary(/^[a-zA-Z0-9._-]+$/, secret),
});

function typeOf(value: Tree): TypeName {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (isMap(value)) return "object";
  if (typeof value === "boolean") return "boolean";
  if (typeof value === "bigint") return "integer";
  return typeof value === "number" ? (Number.isInteger(value) ? "integer" : "number") : "string";
}

function readable(types: readonly TypeName[]): string {
  const names = types.map((name) => (name === "object" ? "mapping" : name));
  if (names.length === 1) return names[0]!;
  const sorted = names.sort(compareStrings);
  return `${sorted.slice(0, -1).join(", ")} or ${sorted.at(-1)}`;
}

/** The most telling problem of a value; the first one of several equals. */
function check(value: Tree, shape: Shape, path: TreePath): Problem | undefined {
  const have = typeOf(value);
  if (
    shape.types !== undefined &&
    !shape.types.includes(have) &&
    !(have === "integer" && shape.types.includes("number"))
  ) {
    return { path, message: `must be a ${readable(shape.types)}`, weight: path.length };
  }
  const found: (Problem | undefined)[] = [];
  if (isMap(value)) found.push(...checkMembers(value, shape, path));
  if (Array.isArray(value)) found.push(...checkItems(value, shape, path));
  if (shape.anyOf !== undefined) {
    const each = shape.anyOf.map((other) => check(value, other, path));
    if (!each.includes(undefined)) found.push(...each);
  }
  return worst(found);
}

function worst(problems: readonly (Problem | undefined)[]): Problem | undefined {
  let out: Problem | undefined;
  for (const problem of problems)
    if (problem !== undefined && problem.weight > (out?.weight ?? -1)) out = problem;
  return out;
}

function checkMembers(value: TreeMap, shape: Shape, path: TreePath): (Problem | undefined)[] {
  const missing = (shape.required ?? []).filter((name) => !value.has(name));
  const found: (Problem | undefined)[] = [];
  if (missing.length > 0) {
    const names = missing.map((name) => `'${name}'`).join(", ");
    found.push({
      path,
      message: `missing ${missing.length === 1 ? "property" : "properties"} ${names}`,
      weight: path.length,
    });
  }
  const extra: string[] = [];
  for (const key of sortedKeys(value)) {
    const member =
      shape.members?.get(key) ?? (shape.pattern?.[0].test(key) === true ? shape.pattern[1] : undefined);
    if (member !== undefined) found.push(check(value.get(key)!, member, [...path, key]));
    else if (shape.closed === true && !(shape.open === true && key.startsWith("x-"))) extra.push(key);
  }
  if (extra.length > 0) {
    const names = extra.map((name) => `'${name}'`).join(", ");
    found.push({ path, message: `additional properties ${names} not allowed`, weight: path.length + 1 });
  }
  return found;
}

function checkItems(items: readonly Tree[], shape: Shape, path: TreePath): (Problem | undefined)[] {
  const found: (Problem | undefined)[] = [];
  if (shape.unique === true) {
    const at = items.findIndex((item, i) => items.indexOf(item) !== i);
    if (at >= 0) {
      const message = `items at ${items.indexOf(items[at]!)} and ${at} are equal`;
      found.push({ path, message, weight: path.length });
    }
  }
  const { items: itemShape } = shape;
  if (itemShape !== undefined)
    found.push(...items.map((item, i) => check(item, itemShape, [...path, String(i)])));
  return found;
}

/** Fails for a project with parts that the Compose specification doesn't know. */
export function checkProject(model: TreeMap): void {
  const problem = check(model, project, []);
  if (problem !== undefined) fail(`${pathText(problem.path)} ${problem.message}`);
}
