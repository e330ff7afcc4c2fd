import { csvFields, goJson } from "@kiln/formats";
import { compareStrings } from "@kiln/hcl";
import type { Json } from "../fields/field.ts";
import type { Group, Target } from "../fields/target.ts";
import { TARGET_FIELDS } from "../fields/target-fields.ts";
import type { VariableInfo } from "../language/evaluator.ts";
import { cut, fail } from "../problem.ts";
import type { Config } from "../resolve/config.ts";

function groupJson({ description, targets }: Group): Json {
  return { ...(description === "" ? {} : { description }), targets: targets ?? null };
}

/** A target as `--print` shows it. */
export function targetJson(target: Target): Json {
  const out: Record<string, Json> = {};
  for (const field of TARGET_FIELDS) {
    const value = target.get(field);
    const shown = value === undefined ? undefined : field.print(value);
    if (shown !== undefined) out[field.name] = shown;
  }
  return out;
}

/** The document of `bake --print`, with a line end. */
export function printDefinition(
  groups: ReadonlyMap<string, Group>,
  targets: ReadonlyMap<string, Target>,
): string {
  const group = new Map([...groups].map(([name, value]) => [name, groupJson(value)]));
  const target = new Map([...targets].map(([name, value]) => [name, targetJson(value)]));
  return `${goJson({ ...(group.size === 0 ? {} : { group }), target }, { indent: "  " })}\n`;
}

/** What `--list` asks for. */
export interface ListRequest {
  readonly type: "targets" | "variables";
  readonly format: "table" | "json";
}

/** Reads `targets`, or `type=variables,format=json`. */
export function parseListRequest(text: string): ListRequest {
  const fields = csvFields(text);
  let type = fields.length === 1 && fields[0] === text && !text.startsWith("type=") ? text : "";
  let format = "table";
  if (type === "") {
    for (const field of fields) {
      const [key, value] = cut(field, "=");
      if (value === undefined) fail(`invalid value ${field}`);
      const name = key.toLowerCase().trim();
      if (name === "type") type = value;
      else if (name === "format") format = value === "" ? "table" : value;
      else fail(`unexpected key '${name}' in '${field}'`);
    }
  }
  if (type !== "targets" && type !== "variables") fail(`invalid list type ${JSON.stringify(type)}`);
  if (format !== "table" && format !== "json") fail(`invalid list format ${JSON.stringify(format)}`);
  return { type, format };
}

/** The text of `--list`. */
export function printList(request: ListRequest, config: Config, variables: readonly VariableInfo[]): string {
  return request.type === "targets"
    ? listTargets(request.format, config)
    : listVariables(request.format, variables);
}

function byName<T extends { readonly name: string }>(items: readonly T[]): T[] {
  return [...items].sort((a, b) => compareStrings(a.name, b.name));
}

function listVariables(format: "table" | "json", variables: readonly VariableInfo[]): string {
  const sorted = byName(variables);
  if (format === "json") {
    const rows = sorted.map(({ name, description, type, value }) => ({
      name,
      ...(description === "" ? {} : { description }),
      ...(type === "" ? {} : { type }),
      ...(value === undefined ? {} : { value }),
    }));
    return `${goJson(rows, { indent: "  " })}\n`;
  }
  const rows = sorted.map(({ name, type, value, description }) => [
    name,
    type,
    value ?? "<null>",
    description,
  ]);
  return tabulate([["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"], ...rows]);
}

function describeGroup({ description, targets = [] }: Group): string {
  if (targets.length === 0) return description;
  const names = [...targets].sort(compareStrings).join(", ");
  return description === "" ? names : `${description} (${names})`;
}

function listTargets(format: "table" | "json", config: Config): string {
  const all = [
    ...config.targets.map((target) => {
      const description = TARGET_FIELDS.find((field) => field.name === "description");
      const text = description === undefined ? undefined : target.get(description);
      return { name: target.name, description: typeof text === "string" ? text : "", group: false };
    }),
    ...config.groups.map((group) => ({ name: group.name, description: describeGroup(group), group: true })),
  ];
  const shown = byName(all).filter(({ name }) => !name.startsWith("_"));
  if (format === "table") {
    return tabulate([
      ["TARGET", "DESCRIPTION"],
      ...shown.map(({ name, description }) => [name, description]),
    ]);
  }
  if (shown.length === 0) return "null\n";
  const rows = shown.map(({ name, description, group }) => ({
    name,
    ...(description === "" ? {} : { description }),
    ...(group ? { group } : {}),
  }));
  return `${goJson(rows, { indent: "  " })}\n`;
}

const TAB = 8;

/** As Go's tabwriter with tabs of 8: each cell but a line's last is filled with tabs to its column's width. */
function tabulate(table: readonly (readonly string[])[]): string {
  // Line ends and tabs within cells end lines and cells, too.
  const rows = table.flatMap((cells) =>
    cells
      .join("\t")
      .split("\n")
      .map((line) => line.split("\t")),
  );
  const lines: string[] = rows.map(() => "");
  const widthFrom = (row: number, column: number): number => {
    let first = row;
    let last = row;
    while (first > 0 && rows[first - 1]!.length - 1 > column) first--;
    while (last < rows.length - 1 && rows[last + 1]!.length - 1 > column) last++;
    const widths = rows.slice(first, last + 1).map((cells) => [...(cells[column] ?? "")].length);
    const widest = Math.max(...widths) + 1;
    return Math.ceil(widest / TAB) * TAB;
  };
  for (const [i, cells] of rows.entries()) {
    for (const [column, cell] of cells.entries()) {
      if (column === cells.length - 1) lines[i] += cell;
      else {
        const width = widthFrom(i, column);
        const missing = width - [...cell].length;
        lines[i] += cell + "\t".repeat(Math.ceil(Math.max(0, missing) / TAB));
      }
    }
  }
  return lines.map((line) => `${line}\n`).join("");
}
