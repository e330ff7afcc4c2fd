import { bytesFromText, textFromBytes } from "../base/bytes.ts";
import { lower, upper } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { parseInstructions } from "../instructions/parse.ts";
import type { Instruction, Stage } from "../instructions/types.ts";
import { parseLintOptions } from "../lint/linter.ts";
import { findDirective } from "../syntax/directives.ts";
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
  /** The text as bytes; what isn't UTF-8 is as it was. */
  readonly bytes: Uint8Array;
  readonly fixes: readonly Fix[];
}

/** Which rules are corrected; by default all that the file's `# check=` doesn't skip. */
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
  if (file.problems.length > 0 || parsed.problems.length > 0 || !hasValidCheck(text))
    return { text, bytes: bytesFromText(text), fixes: [] };
  const starts = lineStarts(text);
  const isLower = mostlyLower(stageInstructions(file.instructions));
  const edits: Edit[] = [];
  const facts: CommandFacts = { hasShell: false, mixed: mixedCommands(parsed.stages) };
  for (const node of stageInstructions(file.instructions)) {
    const source = textOf(text, starts, { node, escapeToken: file.escapeToken });
    edits.push(...editsOf(source, isLower, facts));
    // A stage may build on one that sets a shell, so it counts for all that follow.
    if (lower(node.keyword) === "shell") facts.hasShell = true;
  }
  const skips = skippedRules(text);
  const wanted = edits.filter(({ rule }) => options.rules?.includes(rule) ?? !skips(rule));
  return apply(text, starts, wanted);
}

/** What a command's meaning depends on. */
export interface CommandFacts {
  /** A SHELL stands above. */
  hasShell: boolean;
  /** Lines of the CMDs and ENTRYPOINTs that meet in one image. */
  readonly mixed: ReadonlySet<number>;
}

/**
 * Where an image has a CMD and an ENTRYPOINT, from its stage or from those below, the form of the one decides about the
 * other: a CMD means nothing to an ENTRYPOINT of the shell's form.
 */
function mixedCommands(stages: readonly Stage[]): ReadonlySet<number> {
  const families = new Set<Instruction[]>();
  const byName = new Map<string, Instruction[]>();
  for (const stage of stages) {
    const family = byName.get(stage.baseName) ?? [];
    for (const instruction of stage.instructions) {
      if (instruction.kind === "cmd" || instruction.kind === "entrypoint") family.push(instruction);
    }
    families.add(family);
    if (stage.name !== "") byName.set(stage.name, family);
  }
  const lines = new Set<number>();
  for (const family of families) {
    if (new Set(family.map(({ kind }) => kind)).size < 2) continue;
    for (const { location } of family) lines.add(location[0]?.start.line ?? 0);
  }
  return lines;
}

function hasValidCheck(text: string): boolean {
  try {
    parseLintOptions(findDirective("check", text)?.value ?? "");
    return true;
  } catch (error) {
    if (error instanceof Problem) return false;
    throw error;
  }
}

function skippedRules(text: string): (rule: string) => boolean {
  const { skipAll, skip } = parseLintOptions(findDirective("check", text)?.value ?? "");
  return (rule) => skipAll || skip.has(rule);
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

function editsOf(source: InstructionText, isLower: boolean, facts: CommandFacts): Edit[] {
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
  if (keyword === "cmd" || keyword === "entrypoint") edits.push(jsonArgsEdit(source, facts));
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
  const after = parts.join("");
  return { text: after, bytes: bytesFromText(after), fixes };
}
