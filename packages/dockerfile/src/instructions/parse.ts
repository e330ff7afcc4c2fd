import { withSuggestion } from "@kiln/formats";
import { lower } from "../base/go-text.ts";
import { lineRanges, Problem, problemOf, withLocation } from "../base/problem.ts";
import type { Linter } from "../lint/linter.ts";
import { rules, texts } from "../lint/rules.ts";
import type { InstructionNode } from "../syntax/node.ts";
import { parseCmd, parseEntrypoint, parseHealthcheck, parseRun, parseShell } from "./parse-commands.ts";
import { parseAdd, parseCopy } from "./parse-copy.ts";
import { parseFrom } from "./parse-from.ts";
import {
  baseOf,
  parseArg,
  parseEnv,
  parseExpose,
  parseLabel,
  parseMaintainer,
  parseOnbuild,
  parseStopSignal,
  parseUser,
  parseVolume,
  parseWorkdir,
} from "./parse-simple.ts";
import type { ArgInstruction, Dockerfile, Instruction, Stage } from "./types.ts";

type Parser = (node: InstructionNode) => Instruction;

const parsers: ReadonlyMap<string, Parser> = new Map<string, Parser>([
  ["add", parseAdd],
  ["arg", parseArg],
  ["cmd", parseCmd],
  ["copy", parseCopy],
  ["entrypoint", parseEntrypoint],
  ["env", parseEnv],
  ["expose", parseExpose],
  ["healthcheck", parseHealthcheck],
  ["label", parseLabel],
  ["maintainer", parseMaintainer],
  ["onbuild", parseOnbuild],
  ["run", parseRun],
  ["shell", parseShell],
  ["stopsignal", parseStopSignal],
  ["user", parseUser],
  ["volume", parseVolume],
  ["workdir", parseWorkdir],
]);

/** Names of all instructions, in upper case. */
export const instructionNames: readonly string[] = ["from", ...parsers.keys()].map((name) =>
  name.toUpperCase(),
);

/** A Dockerfile's stages, and what is wrong with them; the first problem is the one BuildKit gives. */
export interface ParsedInstructions extends Dockerfile {
  readonly problems: readonly Problem[];
}

/** Gives instructions their meaning, going on after mistakes. */
export function parseInstructions(
  nodes: readonly InstructionNode[],
  linter: Linter | undefined,
): ParsedInstructions {
  const stages: (Stage & { instructions: Instruction[] })[] = [];
  const globalArgs: ArgInstruction[] = [];
  const problems: Problem[] = [];
  for (const node of nodes) {
    const location = lineRanges(node.startLine, node.endLine);
    try {
      // BuildKit stops at the first mistake, so nothing is found behind it.
      const parsed = parseOne(node, problems.length === 0 ? linter : undefined);
      const stage = stages.at(-1);
      if (parsed.kind === "stage") stages.push({ ...parsed, instructions: [] });
      else if (stage !== undefined) stage.instructions.push(parsed);
      else if (parsed.kind === "arg") globalArgs.push(parsed);
      else problems.push(new Problem("no build stage in current context", { locations: [location] }));
    } catch (error) {
      const inner = problemOf(withLocation(problemOf(error), location));
      problems.push(
        new Problem(`dockerfile parse error on line ${node.startLine}: ${inner.message}`, {
          code: inner.code,
          locations: inner.locations,
        }),
      );
    }
  }
  return { stages, globalArgs, problems };
}

/** One instruction or FROM. Throws a problem without position. */
export function parseOne(node: InstructionNode, linter: Linter | undefined): Instruction | Stage {
  const keyword = lower(node.keyword);
  const lint = linter?.withComments(node.comments);
  if (keyword === "from") return fromWithChecks(node, lint);
  const parser = parsers.get(keyword);
  if (parser === undefined) {
    const message = `unknown instruction: ${node.keyword}`;
    throw new Problem(withSuggestion(message, node.keyword, instructionNames, false));
  }
  if (keyword === "maintainer") {
    lint?.run(rules.maintainerDeprecated, baseOf(node).location, texts.maintainerDeprecated());
  }
  const parsed = parser(node);
  if (parsed.kind === "arg") {
    checkDescription(
      "ARG",
      parsed.args.map((arg) => arg.key),
      node,
      lint,
    );
  }
  return parsed;
}

/** Replays an instruction that isn't FROM, as ONBUILD does. */
export function parseTrigger(node: InstructionNode): Instruction {
  const parsed = parseOne(node, undefined);
  if (parsed.kind === "stage") throw new Problem("*instructions.Stage is not a command type");
  return parsed;
}

function fromWithChecks(node: InstructionNode, lint: Linter | undefined): Stage {
  const { args } = node;
  const location = lineRanges(node.startLine, node.endLine);
  if (args.length === 3 && args[2] !== lower(args[2]!)) {
    lint?.run(rules.stageNameCasing, location, texts.stageNameCasing(args[2]!));
  }
  if (args.length >= 3 && !sameCasing(node.keyword, args[1]!)) {
    lint?.run(rules.fromAsCasing, location, texts.fromAsCasing(node.keyword, args[1]!));
  }
  const stage = parseFrom(node);
  if (stage.name !== "") checkDescription("FROM", [stage.name], node, lint);
  return stage;
}

/** A keyword of mixed case says nothing about `as`. */
function sameCasing(from: string, as: string): boolean {
  if (from === from.toLowerCase()) return as === lower(as);
  return from !== from.toUpperCase() || as === as.toUpperCase();
}

function checkDescription(
  keyword: string,
  names: readonly string[],
  node: InstructionNode,
  lint: Linter | undefined,
): void {
  const comment = node.comments.at(-1);
  if (comment === undefined || names.length === 0) return;
  if (names.includes(comment.split(" ", 1)[0]!)) return;
  const example = names.length > 1 ? "<arg_key>" : names[0]!;
  lint?.run(
    rules.invalidDefinitionDescription,
    lineRanges(node.startLine, node.endLine),
    texts.invalidDefinitionDescription(keyword, example),
  );
}
