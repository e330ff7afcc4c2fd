import { type Body, type Diagnostic, didYouMean, formatRange, quote, type Range } from "@kiln/hcl";
import { fieldNames } from "./block-kinds.ts";
import { KNOWN_VARIABLE_ITEMS } from "./definitions.ts";

const NAMES = new Map<string, readonly string[]>([
  ["target", [...fieldNames("target"), "matrix", "name"]],
  ["group", fieldNames("group")],
  ["variable", KNOWN_VARIABLE_ITEMS],
]);
const KINDS = ["target", "group", "variable"] as const;

/** Warnings about attributes and blocks that are ignored because nothing has that name. */
export function ignoredItems(body: Body): Diagnostic[] {
  const out: Diagnostic[] = [];
  const schema = { attributes: [], blocks: KINDS.map((type) => ({ type, labels: ["name"] })) };
  const { content } = body.partialContent(schema, []);
  for (const block of content.blocks) {
    const known = NAMES.get(block.type) ?? [];
    for (const item of block.body.itemNames()) {
      if (known.includes(item.name)) continue;
      out.push(
        ignored(`${item.name} in ${block.type} ${block.labels[0] ?? ""}`, item.name, known, item.range),
      );
    }
  }
  return out;
}

/** Warnings about variables that Compose files use and that aren't set, in compose-go's words. */
export function unsetVariables(names: Iterable<string>): Diagnostic[] {
  return [...names].map((name) => ({
    severity: "warning",
    summary: "Unset variable",
    detail: `The ${quote(name)} variable is not set. Defaulting to a blank string.`,
    subject: undefined,
  }));
}

/** What is printed of the warnings among diagnostics. */
export function warningTexts(diagnostics: readonly Diagnostic[]): string[] {
  return diagnostics.flatMap(({ severity, detail, subject }) => {
    if (severity !== "warning") return [];
    return [subject === undefined ? detail : `${formatRange(subject)}: ${detail}`];
  });
}

function ignored(what: string, name: string, known: readonly string[], subject: Range): Diagnostic {
  const hint = didYouMean(name, known);
  return {
    severity: "warning",
    summary: "Ignored",
    detail: `${what} is not known and has no effect.${hint}`,
    subject,
  };
}
