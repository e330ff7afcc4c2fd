/** JSON. */
export type PlainJson =
  | null
  | string
  | number
  | boolean
  | readonly PlainJson[]
  | { readonly [key: string]: PlainJson };

type Fields = readonly (readonly [name: string, value: PlainJson])[];

/** Groups and targets with the names of the HCL language; in their texts, `${` and `%{` are escaped. */
export interface BakeDocument {
  readonly groups: readonly (readonly [name: string, fields: Fields])[];
  readonly targets: readonly (readonly [name: string, fields: Fields])[];
  readonly variables?: readonly (readonly [name: string, fields: Fields])[];
}

/** Changes texts, and the keys of objects, which are templates, too. */
function changeTexts(value: PlainJson, change: (text: string) => string): PlainJson {
  if (typeof value === "string") return change(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item: PlainJson) => changeTexts(item, change));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [change(key), changeTexts(item, change)]),
  );
}

function escapeText(text: string): string {
  return text.replaceAll(/[$%]\{/g, (mark) => `${mark[0]}${mark}`);
}

/** Texts so that HCL reads them as they are. */
export function escapeTexts(value: PlainJson): PlainJson {
  return changeTexts(value, escapeText);
}

/** The keys of an object alone, where its texts are escaped already. */
export function escapeKeys(value: PlainJson): PlainJson {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [escapeText(key), item]));
}

/** The reverse of {@link escapeTexts}. */
export function plainTexts(value: PlainJson): PlainJson {
  return changeTexts(value, (text) => text.replaceAll(/([$%])\1\{/g, (mark) => mark.slice(1)));
}

/** The document in HCL's JSON syntax, which has no empty blocks. */
export function documentJson({ groups, targets, variables = [] }: BakeDocument): string {
  const blocks = (kind: string, items: BakeDocument["targets"]): Record<string, PlainJson> =>
    items.length === 0
      ? {}
      : { [kind]: Object.fromEntries(items.map(([name, fields]) => [name, Object.fromEntries(fields)])) };
  const document = {
    ...blocks("variable", variables),
    ...blocks("group", groups),
    ...blocks("target", targets),
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}
