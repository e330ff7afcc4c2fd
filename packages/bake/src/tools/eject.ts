import { formatCsvFields } from "@kiln/formats";
import { type BakeConfig, documentOfConfig, kebabCase } from "./define.ts";
import {
  type BakeDocument,
  documentJson,
  escapeKeys,
  escapeTexts,
  type PlainJson,
  plainTexts,
} from "./document.ts";
import { camelCase } from "./types.ts";

/** The language to write a definition in. */
export type EjectFormat = "hcl" | "json" | "ts";

/** Attributes whose texts `--print` writes with escapes already. */
const ESCAPED = new Set(["annotations", "args", "labels", "dockerfile-inline", "extra-hosts"]);

/** Writes a typed definition in another language. */
export function ejectConfig(config: BakeConfig, format: EjectFormat): string {
  return write(documentOfConfig(config), format);
}

/** Writes what a definition comes to: everything is resolved, and nothing depends on variables any more. */
export function ejectPlan(plan: { print(): string }, format: EjectFormat): string {
  const { group = {}, target = {} } = JSON.parse(plan.print()) as Readonly<
    Record<string, Readonly<Record<string, Readonly<Record<string, PlainJson>>>>>
  >;
  const fields = (given: Readonly<Record<string, PlainJson>>): [string, PlainJson][] =>
    Object.entries(given).map(([name, value]) => {
      if (name === "policy" && Array.isArray(value)) return [name, value.map(policyText)];
      return [name, ESCAPED.has(name) ? escapeKeys(value) : escapeTexts(value)];
    });
  const blocks = (given: typeof group): [string, [string, PlainJson][]][] =>
    Object.entries(given).map(([name, value]) => [name, fields(value)]);
  return write({ groups: blocks(group), targets: blocks(target) }, format);
}

/** `--print` writes policies as the client sends them; definitions have them as texts. */
function policyText(entry: PlainJson): string {
  const { Files, Reset, Disabled, Strict, LogLevel } = entry as {
    readonly [key: string]: PlainJson;
  };
  const files = Array.isArray(Files) ? (Files as readonly { readonly Filename: string }[]) : [];
  const fields = [
    ...files.map(({ Filename }) => `filename=${Filename}`),
    ...(Reset === true ? ["reset=true"] : []),
    ...(Disabled === true ? ["disabled=true"] : []),
    ...(typeof Strict === "boolean" ? [`strict=${Strict}`] : []),
    ...(typeof LogLevel === "string" ? [`log-level=${LogLevel}`] : []),
  ];
  return escapeTexts(formatCsvFields(fields)) as string;
}

function write(document: BakeDocument, format: EjectFormat): string {
  if (format === "json") return documentJson(document);
  return format === "hcl" ? writeHcl(document) : writeTypeScript(document);
}

/** HCL has JSON's escapes except for `\\b` and `\\f`; U+FFFD as it is would count as a sign of bytes that aren't UTF-8. */
function hclText(text: string): string {
  return JSON.stringify(text)
    .replaceAll(/\\(.)/g, (whole, letter: string) =>
      letter === "b" ? "\\u0008" : letter === "f" ? "\\u000c" : whole,
    )
    .replaceAll("\ufffd", "\\ufffd");
}

function hclValue(value: PlainJson, indent: string): string {
  if (typeof value === "string") return hclText(value);
  if (typeof value !== "object" || value === null) return String(value);
  const inner = `${indent}  `;
  const items = Array.isArray(value)
    ? value.map((item: PlainJson) => `${inner}${hclValue(item, inner)},`)
    : Object.entries(value).map(([key, item]) => `${inner}${hclKey(key)} = ${hclValue(item, inner)}`);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (items.length === 0) return `${open}${close}`;
  return `${open}\n${items.join("\n")}\n${indent}${close}`;
}

function hclKey(key: string): string {
  return /^[A-Za-z_][\w-]*$/.test(key) && !["null", "true", "false", "for"].includes(key)
    ? key
    : hclText(key);
}

function writeHcl({ groups, targets }: BakeDocument): string {
  const block = (kind: string, [name, fields]: BakeDocument["targets"][number]): string => {
    const lines = fields.map(([key, value]) => `  ${key} = ${hclValue(value, "  ")}\n`);
    return `${kind} ${hclText(name)} {\n${lines.join("")}}\n`;
  };
  return [
    ...groups.map((group) => block("group", group)),
    ...targets.map((target) => block("target", target)),
  ].join("\n");
}

/** `__proto__: …` in an object literal isn't a member; `["__proto__"]: …` is. */
function scriptKey(key: string): string {
  if (key === "__proto__") return `["__proto__"]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key);
}

function scriptValue(value: PlainJson, indent: string): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    return `[${value.map((item: PlainJson) => scriptValue(item, indent)).join(", ")}]`;
  }
  const lines = Object.entries(value).map(
    ([key, item]) => `${inner}${scriptKey(key)}: ${scriptValue(item, inner)},\n`,
  );
  return lines.length === 0 ? "{}" : `{\n${lines.join("")}${indent}}`;
}

function writeTypeScript({ groups, targets }: BakeDocument): string {
  const fields = (items: BakeDocument["targets"][number][1]): PlainJson =>
    Object.fromEntries(
      items.map(([name, value]) => {
        const text = plainTexts(value);
        const own = name === "resources" ? camelKeys(text) : text;
        return [kebabCase(camelCase(name)) === name ? camelCase(name) : name, own];
      }),
    );
  const blocks = (items: BakeDocument["targets"]): PlainJson =>
    Object.fromEntries(items.map(([name, item]) => [name, fields(item)]));
  const config: PlainJson = {
    ...(groups.length === 0 ? {} : { groups: blocks(groups) }),
    targets: blocks(targets),
  };
  return `import { defineBake } from "@kiln/bake";\n\nexport default defineBake(${scriptValue(config, "")});\n`;
}

function camelKeys(value: PlainJson): PlainJson {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [camelCase(key), item]));
}
