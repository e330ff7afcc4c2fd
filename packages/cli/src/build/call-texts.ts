/** What `--call` answers, as Buildx writes them for people. */
import { alignColumns } from "../tab-writer.ts";

/** Newest version of an answer's JSON that is understood. */
const KNOWN_VERSION = [1, 0, 0];

/** Makes text of an answer's JSON. */
export type CallText = (json: unknown) => string;

/** By the name that `--call` has. */
export const callTexts: Readonly<Record<string, CallText>> = {
  outline: outlineText,
  targets: targetsText,
  "subrequests.describe": describeText,
};

/** True for answers of a frontend that is newer than this program; those come with a text of their own. */
export function isNewerAnswer(version: string): boolean {
  const parts = version.split(".").map(Number);
  for (const [i, known] of KNOWN_VERSION.entries()) {
    const part = parts[i] ?? 0;
    if (part !== known) return part > known;
  }
  return false;
}

function outlineText(json: unknown): string {
  const outline = fieldsOf(json);
  const [name, description] = [textOf(outline.name), textOf(outline.description)];
  let out = "";
  if (name !== "" || description !== "") {
    const rows = [["TARGET:", name || "(default)"]];
    if (description !== "") rows.push(["DESCRIPTION:", description]);
    out += `${table(rows, 1)}\n`;
  }
  const args = listOf(outline.args).map((arg) => [arg.name, arg.value, arg.description].map(textOf));
  if (args.length > 0) out += `${table([["BUILD ARG", "VALUE", "DESCRIPTION"], ...args], 3)}\n`;
  for (const [title, items] of [
    ["SECRET", outline.secrets],
    ["SSH", outline.ssh],
  ] as const) {
    const rows = listOf(items).map((item) => [textOf(item.name), item.required === true ? "true" : ""]);
    if (rows.length > 0) out += `${table([[title, "REQUIRED"], ...rows], 3)}\n`;
  }
  return out;
}

function targetsText(json: unknown): string {
  const rows = listOf(fieldsOf(json).targets).map((target) => {
    const name = textOf(target.name);
    const title = target.default !== true ? name : name === "" ? "(default)" : `${name} (default)`;
    return [title, textOf(target.description)];
  });
  return table([["TARGET", "DESCRIPTION"], ...rows], 1);
}

function describeText(json: unknown): string {
  const rows = listOf(json).map((request) => [
    textOf(request.name).replace(/^frontend\./, ""),
    textOf(request.version),
    textOf(request.description),
  ]);
  return table([["NAME", "VERSION", "DESCRIPTION"], ...rows], 1);
}

function table(rows: readonly (readonly string[])[], padding: number): string {
  return alignColumns(rows.map((row) => `${row.join("\t")}\n`).join(""), { minWidth: 0, padding });
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fieldsOf) : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
