import { didYouMean } from "@kiln/hcl";
import type { Json } from "../fields/field.ts";
import { TARGET_FIELDS } from "../fields/target-fields.ts";
import type { BakeConfig } from "../gen/target-definition.ts";
import { kebabCase } from "./define.ts";
import { camelCase } from "./types.ts";

/** What is wrong with a value that should be a definition. */
export interface ConfigProblem {
  readonly message: string;
  /** Where: keys from the outside in. */
  readonly path: readonly string[];
}

type Schema = { readonly [key: string]: Json };
type Report = (path: readonly string[], message: string) => void;

const MAX_PROBLEMS = 20;
const TARGET_NAME = /^[a-zA-Z0-9_-]+$/;
/** Members of objects about which a schema says nothing. */
const SCALAR: Schema = { type: ["string", "number", "boolean"] };
const SCHEMAS = new Map(TARGET_FIELDS.map(({ name, schema }) => [name, schema as Schema]));

/**
 * Checks a value that a typed definition gave, by the attribute records. Whatever types say, it may be anything:
 * the file was only stripped of its types, not checked.
 */
export function checkConfig(value: unknown): { readonly config: BakeConfig } | readonly ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const report: Report = (path, message) => {
    if (problems.length < MAX_PROBLEMS) problems.push({ path, message });
  };
  if (!isObject(value)) report([], `the definition must be an object, not ${kindOf(value)}`);
  else checkTop(value, report);
  return problems.length > 0 ? problems : { config: value as unknown as BakeConfig };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

function checkTop(value: Readonly<Record<string, unknown>>, report: Report): void {
  const names = ["groups", "targets"];
  for (const name of Object.keys(value)) {
    if (!names.includes(name))
      report([name], `${JSON.stringify(name)} is not known here.${didYouMean(name, names)}`);
  }
  if (value.targets === undefined) report([], '"targets" is missing');
  for (const [kind, check] of [
    ["groups", checkGroup],
    ["targets", checkTarget],
  ] as const) {
    const items = value[kind];
    if (items === undefined) continue;
    if (!isObject(items)) report([kind], `${JSON.stringify(kind)} must be an object, not ${kindOf(items)}`);
    else {
      for (const [name, item] of Object.entries(items)) {
        if (!TARGET_NAME.test(name))
          report([kind, name], `invalid name ${JSON.stringify(name)}, want letters, digits, "_" and "-"`);
        check(name, item, report);
      }
    }
  }
}

function checkGroup(name: string, item: unknown, report: Report): void {
  const path = ["groups", name];
  const what = `group ${JSON.stringify(name)}`;
  if (!Array.isArray(item) && !isObject(item)) {
    report(path, `${what} must be an array of names or an object, not ${kindOf(item)}`);
    return;
  }
  const group = Array.isArray(item) ? { targets: item } : item;
  for (const [key, value] of Object.entries(group)) {
    if (key === "targets")
      checkValue({ type: ["array", "null"], items: { type: "string" } }, value, sink(key));
    else if (key === "description") checkValue({ type: ["string", "null"] }, value, sink(key));
    else report([...path, key], `${what}: unknown attribute ${JSON.stringify(key)}`);
  }
  if (group.targets === undefined) report(path, `${what} has no "targets"`);

  function sink(key: string): (message: string) => void {
    return (message) => report([...path, key], `${what}: ${JSON.stringify(key)} ${message}`);
  }
}

function checkTarget(name: string, item: unknown, report: Report): void {
  const path = ["targets", name];
  const what = `target ${JSON.stringify(name)}`;
  if (!isObject(item)) {
    report(path, `${what} must be an object, not ${kindOf(item)}`);
    return;
  }
  const seen = new Set<string>();
  for (const [key, value] of Object.entries(item)) {
    const attribute = kebabCase(key);
    const schema = SCHEMAS.get(attribute);
    if (schema === undefined) {
      const known = [...SCHEMAS.keys()].map(camelCase);
      report(
        [...path, key],
        `${what}: unknown attribute ${JSON.stringify(key)}.${didYouMean(key, known)}`.replace(/\.$/, ""),
      );
      continue;
    }
    if (seen.has(attribute)) report([...path, key], `${what}: ${JSON.stringify(attribute)} is given twice`);
    seen.add(attribute);
    if (value === undefined || value === null) continue;
    checkValue(schema, value, (message) =>
      report([...path, key], `${what}: ${JSON.stringify(key)} ${message}`),
    );
  }
}

function asSchema(value: Json | undefined): Schema {
  return isObject(value) ? (value as Schema) : {};
}

function scalarProblem(types: readonly string[], value: unknown): string | undefined {
  const kind = value === null ? "null" : typeof value;
  if (types.includes(kind)) return undefined;
  // Texts may be written as numbers and bools: they are converted as HCL does.
  if (types.includes("string") && (kind === "number" || kind === "boolean")) return undefined;
  if (types.includes("number") && kind === "string") return undefined;
  const wanted = types.filter((type) => type !== "null").map((type) => `a ${type}`);
  return `must be ${wanted.join(" or ")}, not ${kindOf(value)}`;
}

function checkValue(schema: Schema, value: unknown, report: (message: string) => void): void {
  const { type, oneOf } = schema;
  if (Array.isArray(oneOf)) {
    const [, shape] = oneOf as readonly Json[];
    if (typeof value === "string") return;
    if (isObject(value)) checkValue(asSchema(shape), value, report);
    else report(`must hold texts and objects, not ${kindOf(value)}`);
    return;
  }
  const types = Array.isArray(type) ? (type as readonly string[]) : typeof type === "string" ? [type] : [];
  if (value === null && types.includes("null")) return;
  if (types.includes("array")) {
    if (!Array.isArray(value)) report(`must be an array, not ${kindOf(value)}`);
    else for (const [i, item] of value.entries()) checkValue(asSchema(schema.items), item, at(`[${i}]`));
  } else if (types.includes("object")) {
    if (!isObject(value)) report(`must be an object, not ${kindOf(value)}`);
    else checkMembers(schema, value, at);
  } else if (types.length > 0) {
    const problem = scalarProblem(types, value);
    if (problem !== undefined) report(problem);
  }

  function at(place: string): (message: string) => void {
    return (message) => report(`${place} ${message}`);
  }
}

function checkMembers(
  schema: Schema,
  value: Readonly<Record<string, unknown>>,
  at: (place: string) => (message: string) => void,
): void {
  const known = schema.properties === undefined ? undefined : asSchema(schema.properties);
  const others = isObject(schema.additionalProperties) ? asSchema(schema.additionalProperties) : SCALAR;
  for (const [key, item] of Object.entries(value)) {
    const name = kebabCase(key);
    const report = at(JSON.stringify(key));
    if (known === undefined) checkValue(others, item, report);
    else if (Object.hasOwn(known, name)) checkValue(asSchema(known[name]), item, report);
    else report("is not known");
  }
}

/** The line (from 1) of a definition's text on which the last key of `path` seems to stand; undefined if unsure. */
export function lineOfPath(text: string, path: readonly string[]): number | undefined {
  let from = 0;
  for (const key of path) {
    const name = key.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const pattern = new RegExp(`(?:^|[\\s{,])(["'\`]?)(${name})\\1\\s*:`, "dg");
    pattern.lastIndex = from;
    const found = pattern.exec(text)?.indices?.[2];
    if (found === undefined) return undefined;
    from = found[0];
  }
  return path.length === 0 ? undefined : text.slice(0, from).split("\n").length;
}
