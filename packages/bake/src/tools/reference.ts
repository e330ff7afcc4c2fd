import type { Json } from "../fields/field.ts";
import { TARGET_FIELDS } from "../fields/target-fields.ts";

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

/** The reference page of target attributes, in Markdown. */
export function referencePage(): string {
  const rows = TARGET_FIELDS.map(({ name, doc, override, compose, extension, nullable }) => {
    const keys = override === undefined ? "" : overrideForms(override.keys, override.shape);
    const origin = [
      ...(compose === undefined ? [] : ["`build`"]),
      ...(extension === undefined ? [] : [`\`x-bake.${extension.key}\``]),
    ];
    return `| [\`${name}\`](#${name}) | ${cell(doc)} | ${cell(keys)} | ${origin.join(", ")} | ${nullable ? "yes" : ""} |`;
  });
  const sections = TARGET_FIELDS.map(({ name, doc, example, override }) => {
    const set =
      override === undefined
        ? "It can't be set with `--set`."
        : `\`--set\`: ${overrideForms(override.keys, override.shape)}`;
    return `### ${name}\n\n${doc}\n\n\`\`\`hcl\n${example}\n\`\`\`\n\n${set}\n`;
  });
  return `# Bake: attributes of a target

<!-- Written by packages/bake from its attribute records. Change those, then run its tests with KILN_UPDATE_DOCS=1. -->

[The command](bake-command.md) has a page of its own; [the guide](../guide/bake.md) has examples. \`kiln.bake.ts\` has the same
attributes in camel case: \`cacheFrom\` for \`cache-from\`.

| Attribute | | \`--set\` | From Compose | May be null |
| --- | --- | --- | --- | --- |
${rows.join("\n")}

A target also has \`name\` and \`matrix\`: one target is made for each combination of the matrix' values.

${sections.join("\n")}`;
}

function overrideForms(keys: readonly string[], shape: "scalar" | "list" | "named" | "both"): string {
  return keys
    .flatMap((key) => {
      if (shape === "named") return [`\`${key}.NAME=VALUE\``];
      if (shape === "list") return [`\`${key}=VALUE\`, \`${key}+=VALUE\``];
      return shape === "scalar" ? [`\`${key}=VALUE\``] : [`\`${key}=VALUE\``, `\`${key}.NAME=VALUE\``];
    })
    .join(", ");
}

/** JSON schema of `docker-bake.json`. */
export function bakeSchema(): Json {
  const fields = TARGET_FIELDS.map(({ name, doc, schema }) => {
    const own = schema as { readonly [key: string]: Json };
    const template: Json = { type: "string", pattern: "^\\$\\{" };
    return [name, { description: doc, anyOf: [own, template] }] as const;
  });
  const text: Json = { type: "string" };
  const texts: Json = { type: "array", items: text };
  const oneOrMore = (shape: Json): Json => ({ anyOf: [shape, { type: "array", items: shape }] });
  const blocks = (shape: Json): Json => ({ type: "object", additionalProperties: oneOrMore(shape) });
  const target: Json = {
    type: "object",
    properties: Object.fromEntries<Json>([
      ...fields,
      ["name", { ...{ type: "string" }, description: "Names the targets that a matrix makes." }],
      ["matrix", { type: "object", description: "One target for each combination of these values." }],
    ]),
  };
  const validation: Json = { type: "object", properties: { condition: {}, error_message: text } };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Bake definition",
    type: "object",
    properties: {
      group: blocks({
        type: "object",
        properties: { name: text, matrix: { type: "object" }, description: text, targets: texts },
      }),
      target: blocks(target),
      variable: blocks({
        type: "object",
        properties: { default: {}, type: text, description: text, validation: oneOrMore(validation) },
      }),
      function: blocks({ type: "object", properties: { params: texts, variadic_params: text, result: {} } }),
    },
  };
}
