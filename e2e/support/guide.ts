import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A command of a guide with what it prints on stdout. */
export interface GuideCommand {
  readonly line: string;
  readonly output: string;
}

/** A part of a guide that works in one folder. */
export interface GuideExample {
  /** Path from the repository's root. */
  readonly folder: string;
  /** Files that are shown, by name. */
  readonly files: ReadonlyMap<string, string>;
  readonly commands: readonly GuideCommand[];
}

/** Stands for any text in a shown output. */
const ANYTHING = "…";

/**
 * Reads a guide. `<!-- examples/… -->` starts an example; a block `console` holds commands behind `$ ` with their
 * outputs, any other block with a name behind its language shows a file.
 */
export function readGuide(path: string): GuideExample[] {
  const examples: { folder: string; files: Map<string, string>; commands: GuideCommand[] }[] = [];
  const pattern = /^<!-- (examples\/\S+) -->$|^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm;
  for (const [, folder, language, name, text = ""] of readFileSync(path, "utf8").matchAll(pattern)) {
    if (folder !== undefined) examples.push({ folder, files: new Map(), commands: [] });
    const example = examples.at(-1);
    if (example === undefined || language === undefined) continue;
    if (language === "console") example.commands.push(...commandsOf(text));
    else if (name !== undefined) example.files.set(name, text);
  }
  return examples;
}

function commandsOf(text: string): GuideCommand[] {
  return text
    .split(/^\$ /m)
    .slice(1)
    .map((part) => {
      const end = part.indexOf("\n");
      return { line: part.slice(0, end), output: part.slice(end + 1) };
    });
}

/** Compares an output with a shown one, in which `…` stands for anything. */
export function checkOutput(found: string, shown: string, what: string): void {
  const parts = shown.split(ANYTHING).map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (new RegExp(`^${parts.join("[\\s\\S]*?")}$`).test(found)) return;
  assert.equal(found, shown, what);
}

/** Compares the shown files with those of the example's folder. */
export function checkFiles(root: string, { folder, files }: GuideExample): void {
  for (const [name, text] of files) assert.equal(readFileSync(join(root, folder, name), "utf8"), text, name);
}
