/** The answers of `--keys` and `--changed-since`. */
import { goJson } from "@kiln/formats";
import type { AnswerFormat } from "../questions.ts";
import type { Reason, TargetChange } from "./compare-keys.ts";
import type { TargetKey } from "./target-key.ts";

/** Files that are named before the rest is only counted. */
const MAX_NAMED_FILES = 3;

/** The text of `--keys`. */
export function printKeys(keys: ReadonlyMap<string, TargetKey>, format: AnswerFormat): string {
  if (format === "table")
    return table([["TARGET", "KEY"], ...[...keys.values()].map(({ name, key }) => [name, key])]);
  const targets = [...keys.values()].map(({ name, key, images, links, files, note }) => [
    name,
    {
      key,
      files: files.size,
      ...(images.length === 0 ? {} : { images }),
      ...(links.size === 0 ? {} : { targets: [...links.keys()].sort() }),
      ...(note === undefined ? {} : { note }),
    },
  ]);
  return `${goJson({ target: Object.fromEntries(targets) as Record<string, unknown> }, { indent: "  " })}\n`;
}

/** The text of `--changed-since`. */
export function printChanges(changes: readonly TargetChange[], commit: string, format: AnswerFormat): string {
  if (format === "json") {
    const target = changes.map(({ name, change, key, reasons }) => [
      name,
      { change, key, ...(reasons.length === 0 ? {} : { reasons }) },
    ]);
    const changed = changes.filter(({ change }) => change === "changed").map(({ name }) => name);
    const all = Object.fromEntries(target) as Record<string, unknown>;
    const document = { revision: commit, changed, target: all };
    return `${goJson(document, { indent: "  " })}\n`;
  }
  const rows = changes
    .filter(({ change }) => change !== "unchanged")
    .map(({ name, change, reasons }) => [name, change === "removed" ? "removed" : reasonsText(reasons)]);
  return table([["TARGET", "WHY"], ...rows]);
}

function reasonsText(reasons: readonly Reason[]): string {
  const files = reasons.filter((reason) => reason.kind === "file");
  const named = files
    .slice(0, MAX_NAMED_FILES)
    .map(({ path, change }) => (change === "modified" ? shown(path) : `${shown(path)} (${change})`));
  const more = files.length - named.length;
  return [
    ...reasons.filter((reason) => reason.kind !== "file").map(reasonText),
    ...named,
    ...(more > 0 ? [`${more} more ${more === 1 ? "file" : "files"}`] : []),
  ].join(", ");
}

function reasonText(reason: Exclude<Reason, { readonly kind: "file" }>): string {
  switch (reason.kind) {
    case "new":
      return "new";
    case "before":
      return `can't be built at the revision: ${reason.message}`;
    case "renamed":
      return `renamed from ${reason.from}`;
    case "dockerfile":
      return "Dockerfile";
    case "image":
      return `base image ${imagesText(reason)}`;
    case "target":
      return `target ${reason.name}`;
    case "attribute":
      return reason.name;
    case "definition":
      return "definition";
  }
}

function imagesText({
  before,
  now,
}: {
  readonly before: readonly string[];
  readonly now: readonly string[];
}): string {
  if (before.length === 1 && now.length === 1) return `${before[0]} -> ${now[0]}`;
  return [...before.map((name) => `-${name}`), ...now.map((name) => `+${name}`)].join(" ");
}

/** A path for terminals: what could steer one is escaped. */
function shown(path: string): string {
  return /[\u0000-\u001f\u007f-\u009f]/.test(path) ? JSON.stringify(path) : path;
}

function table(rows: readonly (readonly string[])[]): string {
  const width = Math.max(...rows.map(([first = ""]) => first.length)) + 2;
  return rows.map(([first = "", second = ""]) => `${first.padEnd(width)}${second}\n`).join("");
}
