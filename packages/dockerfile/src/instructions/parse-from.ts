import { quoteGo } from "@kiln/formats";
import { equalFold, lower } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { InstructionNode } from "../syntax/node.ts";
import { parseFlags } from "./flags.ts";
import { baseOf, descriptionOf } from "./parse-simple.ts";
import type { Stage } from "./types.ts";

const STAGE_NAME = /^[a-z][a-z0-9-_.]*$/;

/** FROM. */
export function parseFrom(node: InstructionNode): Stage {
  const name = stageName(node.args);
  const flags = parseFlags(node.flags, { platform: "string" });
  const base = baseOf(node);
  return {
    kind: "stage",
    name,
    keyword: node.keyword,
    baseName: node.args[0]!,
    platform: flags.text("platform"),
    description: descriptionOf(node.comments, name),
    code: base.code,
    location: base.location,
    comments: node.comments,
    instructions: [],
  };
}

function stageName(args: readonly string[]): string {
  if (args.length === 3 && equalFold(args[1]!, "as")) {
    const name = lower(args[2]!);
    if (STAGE_NAME.test(name)) return name;
    throw new Problem(
      `invalid name for build stage: ${quoteGo(args[2]!)}, name can't start with a number or contain symbols`,
    );
  }
  if (args.length !== 1) throw new Problem("FROM requires either one or three arguments");
  return "";
}
