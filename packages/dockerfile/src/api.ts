import type { Range } from "@kiln/llb";
import { textFromBytes } from "./base/bytes.ts";
import { lineRanges, type Problem } from "./base/problem.ts";
import { checkCasing, checkStageNames } from "./compile/checks.ts";
import { type SourcePrinter, sourcePrinter } from "./frontend/print-source.ts";
import { parseInstructions } from "./instructions/parse.ts";
import type { Dockerfile } from "./instructions/types.ts";
import { DEFAULT_LINT, type LintConfig, Linter, type LintWarning, parseLintOptions } from "./lint/linter.ts";
import { rules, texts } from "./lint/rules.ts";
import { findDirective } from "./syntax/directives.ts";
import type { InstructionNode } from "./syntax/node.ts";
import { parseFile } from "./syntax/parser.ts";

/** Something to tell about a Dockerfile. */
export interface Diagnostic {
  readonly severity: "error" | "warning";
  /** One line, with "did you mean" where a name is close to a known one. */
  readonly message: string;
  /** Lines count from 1; one range per line. */
  readonly ranges: readonly Range[];
  /** The lines around, with the ranges marked. */
  readonly excerpt: string;
  /** Of warnings: name and page of the rule. */
  readonly rule?: { readonly name: string; readonly url: string; readonly description: string } | undefined;
}

/** A parsed Dockerfile. */
export interface ParsedDockerfile {
  /** Every instruction as written, with positions; also those that have no meaning. */
  readonly nodes: readonly InstructionNode[];
  /** Stages and instructions, as far as they could be understood. */
  readonly ast: Dockerfile;
  /** `\` or a backtick. */
  readonly escapeToken: string;
  /** All mistakes; without any the file is well-formed. */
  readonly diagnostics: readonly Diagnostic[];
}

/** Options of {@link parseDockerfile} and {@link lintDockerfile}. */
export interface ParseOptions {
  /** Name for excerpts; `Dockerfile` by default. */
  readonly filename?: string | undefined;
}

/** Parses a Dockerfile and goes on after mistakes. Never throws for what is in the file. */
export function parseDockerfile(input: string | Uint8Array, options: ParseOptions = {}): ParsedDockerfile {
  const text = typeof input === "string" ? input : textFromBytes(input);
  const file = parseFile(text);
  const { problems, ...ast } = parseInstructions(file.instructions, undefined);
  const print = sourcePrinter(options.filename ?? "Dockerfile", text);
  return {
    nodes: file.instructions,
    ast,
    escapeToken: file.escapeToken,
    diagnostics: [...file.problems, ...problems].map((problem) => errorOf(problem, print)),
  };
}

function errorOf(problem: Problem, print: SourcePrinter): Diagnostic {
  const ranges = problem.locations[0] ?? [];
  return {
    severity: "error",
    message: problem.message,
    ranges,
    excerpt: print(ranges),
  };
}

/** Options of {@link lintDockerfile}. */
export interface LintOptions extends ParseOptions {
  /** As `# check=` has it (`skip=…;error=true;experimental=…`); by default that of the file. */
  readonly check?: string | undefined;
}

/**
 * Checks a Dockerfile by itself: mistakes, and the findings that need no build arguments, images and files.
 * The `frontend.lint` request of {@link buildDockerfile} has them all.
 */
export function lintDockerfile(input: string | Uint8Array, options: LintOptions = {}): Diagnostic[] {
  const text = typeof input === "string" ? input : textFromBytes(input);
  const print = sourcePrinter(options.filename ?? "Dockerfile", text);
  const found: LintWarning[] = [];
  const check = readCheck(options.check ?? findDirective("check", text)?.value ?? "");
  const linter = new Linter(check.config, (warning) => found.push(warning));
  const file = parseFile(text);
  for (const line of file.emptyContinuations) {
    linter.run(rules.noEmptyContinuation, lineRanges(line, line), texts.noEmptyContinuation());
  }
  const { problems, stages } = parseInstructions(file.instructions, linter);
  checkStageNames(stages, linter);
  checkCasing(stages, linter);
  const errors = [...check.problems, ...file.problems, ...problems].map((problem) => errorOf(problem, print));
  return [...errors, ...found.map((warning) => warningOf(warning, print))];
}

function readCheck(text: string): { config: LintConfig; problems: Problem[] } {
  try {
    return { config: parseLintOptions(text), problems: [] };
  } catch (error) {
    return { config: DEFAULT_LINT, problems: [error as Problem] };
  }
}

function warningOf({ rule, message, location }: LintWarning, print: SourcePrinter): Diagnostic {
  return {
    severity: "warning",
    message,
    ranges: location,
    excerpt: print(location),
    rule: { name: rule.name, url: rule.url, description: rule.description },
  };
}
