import type { Json } from "../fields/field.ts";
import { TARGET_FIELDS } from "../fields/target-fields.ts";

/** Texts that editors offer; any other text is taken, too. */
const SUGGESTIONS: Readonly<Record<string, readonly string[]>> = {
  platforms: ["local", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64", "linux/s390x"],
  network: ["default", "none", "host"],
  call: ["build", "check", "outline", "targets"],
  entitlements: ["network.host", "security.insecure"],
};

/** Values of `type` in entries. */
const CACHES = ["registry", "local", "inline", "gha", "s3", "azblob"] as const;
const ENTRY_TYPES: Readonly<Record<string, readonly string[]>> = {
  attest: ["provenance", "sbom"],
  "cache-from": CACHES,
  "cache-to": CACHES,
  output: ["image", "registry", "docker", "oci", "local", "tar", "cacheonly"],
};

const SCALAR = "string | number | boolean";

type Schema = { readonly [key: string]: Json };

function asSchema(value: Json | undefined): Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Schema) : {};
}

/** `cache-from` as TypeScript has it: `cacheFrom`. */
export function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_whole, letter: string) => letter.toUpperCase());
}

function literals(names: readonly string[]): string {
  return `${names.map((name) => JSON.stringify(name)).join(" | ")} | (string & {})`;
}

function properties(schema: Schema): string {
  const members = Object.entries(asSchema(schema.properties)).map(([name, value]) => {
    const optional = name === "id" ? "" : "?";
    const { type } = asSchema(value);
    const text = type === "array" ? "readonly string[]" : type === "number" ? "number" : "string";
    return `readonly ${camelCase(name)}${optional}: ${text};`;
  });
  return `{ ${members.join(" ")} }`;
}

/** The TypeScript type of what a record's schema describes. */
function typeOf(name: string, schema: Schema): string {
  const { type: given, items } = schema;
  const type = Array.isArray(given) ? (given as readonly string[])[0] : given;
  if (type === "string") return SUGGESTIONS[name] === undefined ? "string" : literals(SUGGESTIONS[name]);
  if (type === "boolean") return "boolean";
  if (type === "object") {
    if (schema.properties !== undefined) return properties(schema);
    const values = asSchema(schema.additionalProperties).type;
    return `Readonly<Record<string, ${Array.isArray(values) ? `${SCALAR} | null` : "string"}>>`;
  }
  const { oneOf } = asSchema(items);
  if (!Array.isArray(oneOf)) {
    const text = SUGGESTIONS[name] === undefined ? "string" : `(${literals(SUGGESTIONS[name])})`;
    return `readonly ${text}[]`;
  }
  return `readonly (string | ${entryType(name, asSchema((oneOf as readonly Json[])[1]))})[]`;
}

function entryType(name: string, schema: Schema): string {
  if (schema.properties !== undefined) return properties(schema);
  const types = ENTRY_TYPES[name];
  return types === undefined
    ? `Readonly<Record<string, ${SCALAR}>>`
    : `({ readonly type: ${literals(types)} } & Readonly<Record<string, ${SCALAR}>>)`;
}

const FIXED = `
/** A named list of targets and other groups. */
export interface GroupDefinition {
  /** Shown by \`--list targets\`. */
  readonly description?: string | undefined;
  readonly targets: readonly string[];
}

/** A definition. */
export interface BakeConfig {
  readonly groups?: Readonly<Record<string, readonly string[] | GroupDefinition>> | undefined;
  readonly targets: Readonly<Record<string, TargetDefinition>>;
}

/** What a definition that is a function gets. */
export interface BakeInput {
  /** This machine's platform, such as \`linux/amd64\`. */
  readonly localPlatform: string;
  /** A variable from \`--var\`, else from the environment. */
  variable(name: string): string | undefined;
  /** The same with a default, whose type says how the text is read. */
  variable(name: string, fallback: string, description?: string): string;
  variable(name: string, fallback: number, description?: string): number;
  variable(name: string, fallback: boolean, description?: string): boolean;
}

/** A definition that depends on variables. */
export type BakeFunction = (bake: BakeInput) => BakeConfig | Promise<BakeConfig>;
`;

/** The types of typed definitions, made of the attribute records. */
export function definitionTypes(): string {
  const members = TARGET_FIELDS.map(
    ({ name, doc, example, schema }) =>
      `  /**\n   * ${doc}\n   *\n   * In HCL: \`${example.replaceAll("*/", "*\\/")}\`\n   */\n  readonly ${camelCase(name)}?: ${typeOf(name, asSchema(schema))} | undefined;`,
  );
  return `/** One target. Names are those of HCL, in camel case. */
export interface TargetDefinition {
${members.join("\n")}
}
${FIXED}`;
}

/** The same as declarations of the module \`@kiln/bake\`, for editors: what \`kiln bake --types\` prints. */
export function moduleDeclarations(): string {
  const body = `${definitionTypes()}
/** A definition that depends on variables: \`defineBake(({ variable }) => ({ … }))\`. */
export function defineBake(make: BakeFunction): BakeFunction;
/** Gives a definition its type: \`export default defineBake({ … })\`. */
export function defineBake(config: BakeConfig): BakeConfig;
`;
  const indented = body.replaceAll(/^(?=.)/gm, "  ");
  return `// What kiln.bake.ts is written with: \`/// <reference path="./kiln-bake.d.ts" />\`. Written by \`kiln bake --types\`.\ndeclare module "@kiln/bake" {\n${indented}}\n`;
}
