import type { BakeConfig, BakeFunction, TargetDefinition } from "../gen/target-definition.ts";
import type { BakeFile } from "../host.ts";
import { type BakeDocument, documentJson, escapeTexts, type PlainJson } from "./document.ts";

export type {
  BakeConfig,
  BakeFunction,
  BakeInput,
  GroupDefinition,
  TargetDefinition,
} from "../gen/target-definition.ts";

type Texts = readonly string[];

/** A definition that depends on variables: `defineBake(({ variable }) => ({ … }))`. */
export function defineBake(make: BakeFunction): BakeFunction;
/** Gives an object the type of a definition, for `kiln.bake.ts`: `export default defineBake({ … })`. */
export function defineBake(config: BakeConfig): BakeConfig;
export function defineBake(source: BakeConfig | BakeFunction): BakeConfig | BakeFunction {
  return source;
}

/** A variable that a typed definition asked for. */
export interface DeclaredVariable {
  readonly name: string;
  /** What `--list variables` shows. */
  readonly value: string | number | boolean | null;
  readonly description: string;
}

/** `cacheFrom` as HCL spells it: `cache-from`. */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The definition with the names and texts of the HCL language. */
export function documentOfConfig({ groups = {}, targets }: BakeConfig): BakeDocument {
  const isTexts = (value: unknown): value is Texts => Array.isArray(value);
  return {
    groups: Object.entries(groups).map(([name, group]) => {
      const { description, targets: members } = isTexts(group)
        ? { description: undefined, targets: group }
        : group;
      return [
        name,
        [
          ...(description === undefined ? [] : [["description", escapeTexts(description)] as const]),
          ["targets", escapeTexts(members)],
        ],
      ];
    }),
    targets: Object.entries(targets).map(([name, target]) => [name, fieldsOf(target)]),
  };
}

function fieldsOf(target: TargetDefinition): [string, PlainJson][] {
  return Object.entries(target)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      const given = value as PlainJson;
      return [kebabCase(key), escapeTexts(key === "resources" ? kebabKeys(given) : given)];
    });
}

function kebabKeys(value: PlainJson): PlainJson {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [kebabCase(key), item]));
}

/** The definition as a file that `readBake` takes. */
export function definitionFile(
  config: BakeConfig,
  name = "kiln.bake.json",
  variables: readonly DeclaredVariable[] = [],
): BakeFile {
  const document = { ...documentOfConfig(config), variables: variables.map(variableBlock) };
  return { name, data: new TextEncoder().encode(documentJson(document)) };
}

function variableBlock({
  name,
  value,
  description,
}: DeclaredVariable): readonly [string, readonly (readonly [string, PlainJson])[]] {
  return [
    name,
    [
      ["default", escapeTexts(value)],
      ...(description === "" ? [] : [["description", escapeTexts(description)] as const]),
    ],
  ];
}
