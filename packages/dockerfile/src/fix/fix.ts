import { textFromBytes } from "../base/bytes.ts";
import { lower, upper } from "../base/go-text.ts";
import { parseInstructions } from "../instructions/parse.ts";
import type { InstructionNode } from "../syntax/node.ts";
import { parseFile } from "../syntax/parser.ts";
import { type Edit, type InstructionText, textOf } from "./instruction-text.ts";
import { jsonArgsEdit } from "./json-args.ts";
import { legacyEdit, maintainerEdit } from "./key-value.ts";

/** One correction that was made. */
export interface Fix {
  /** Name of the rule that asked for it. */
  readonly rule: string;
  /** Line, counted from 1 in the original. */
  readonly line: number;
  readonly before: string;
  readonly after: string;
}

/** A corrected Dockerfile. */
export interface FixedDockerfile {
  readonly text: string;
  readonly fixes: readonly Fix[];
}

/** Which rules are corrected; all by default. */
export interface FixOptions {
  readonly rules?: readonly string[] | undefined;
}

/**
 * Rewrites what has one safe correction: casing of keywords, `as` and stage names, `ENV k v` and `LABEL k v`,
 * CMD and ENTRYPOINT of plain words, and MAINTAINER. Every other byte stays. A file with mistakes is left
 * alone.
 */
export function fixDockerfile(input: string | Uint8Array, options: FixOptions = {}): FixedDockerfile {
  const text = typeof input === "string" ? input : textFromBytes(input);
  const file = parseFile(text);
  const parsed = parseInstructions(file.instructions, undefined);
  if (file.problems.length > 0 || parsed.problems.length > 0) return { text, fixes: [] };
  const starts = lineStarts(text);
  const isLower = mostlyLower(stageInstructions(file.instructions));
  const edits: Edit[] = [];
  const stage: StageFacts = { hasShell: false, hasEntrypoint: false };
  for (const node of stageInstructions(file.instructions)) {
    const source = textOf(text, starts, { node, escapeToken: file.escapeToken });
    edits.push(...editsOf(source, isLower, stage));
    note(node, stage);
  }
  const wanted = edits.filter(({ rule }) => options.rules === undefined || options.rules.includes(rule));
  return apply(text, starts, wanted);
}

/** What stands above in the stage. */
export interface StageFacts {
  hasShell: boolean;
  hasEntrypoint: boolean;
}

function note(node: InstructionNode, stage: StageFacts): void {
  const keyword = lower(node.keyword);
  // A stage may build on one that sets a shell, so it counts for all that follow.
  if (keyword === "shell") stage.hasShell = true;
  if (keyword === "from") stage.hasEntrypoint = false;
  if (keyword === "entrypoint") stage.hasEntrypoint = true;
}

/** Without the ARGs before the first FROM, which no rule looks at. */
function stageInstructions(nodes: readonly InstructionNode[]): readonly InstructionNode[] {
  const first = nodes.findIndex(({ keyword }) => lower(keyword) === "from");
  return first < 0 ? [] : nodes.slice(first);
}

function mostlyLower(nodes: readonly InstructionNode[]): boolean {
  let balance = 0;
  for (const { keyword } of nodes) {
    if (keyword === lower(keyword)) balance--;
    else if (keyword === upper(keyword)) balance++;
  }
  return balance < 0;
}

function editsOf(source: InstructionText, isLower: boolean, stage: StageFacts): Edit[] {
  const { node } = source;
  const keyword = lower(node.keyword);
  const cased = isLower ? keyword : upper(keyword);
  const edits: (Edit | undefined)[] = [];
  if (keyword === "maintainer") return [maintainerEdit(source, isLower)].filter((edit) => edit !== undefined);
  if (node.keyword !== cased) {
    edits.push({ ...source.keyword, text: cased, rule: "ConsistentInstructionCasing" });
  }
  if (keyword === "from") edits.push(...fromEdits(source, isLower));
  if (keyword === "env" || keyword === "label") edits.push(legacyEdit(source));
  if (keyword === "cmd" || keyword === "entrypoint") edits.push(jsonArgsEdit(source, stage));
  return edits.filter((edit) => edit !== undefined);
}

function fromEdits(source: InstructionText, isLower: boolean): Edit[] {
  const [, as, name] = source.words();
  if (as === undefined || name === undefined || lower(as.text) !== "as") return [];
  const edits: Edit[] = [];
  const cased = isLower ? "as" : "AS";
  if (as.text !== cased) edits.push({ start: as.start, end: as.end, text: cased, rule: "FromAsCasing" });
  const small = lower(name.text);
  if (name.text !== small) {
    edits.push({ start: name.start, end: name.end, text: small, rule: "StageNameCasing" });
  }
  return edits;
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

function apply(text: string, starts: readonly number[], edits: readonly Edit[]): FixedDockerfile {
  const parts: string[] = [];
  const fixes: Fix[] = [];
  let at = 0;
  let line = 1;
  for (const edit of edits.toSorted((a, b) => a.start - b.start)) {
    while (line < starts.length && starts[line]! <= edit.start) line++;
    parts.push(text.slice(at, edit.start), edit.text);
    fixes.push({ rule: edit.rule, line, before: text.slice(edit.start, edit.end), after: edit.text });
    at = edit.end;
  }
  parts.push(text.slice(at));
  return { text: parts.join(""), fixes };
}
