import { compareUtf8 } from "@kiln/llb";
import { trimSpace } from "../base/go-text.ts";
import { lineRanges, Problem } from "../base/problem.ts";
import type { InstructionNode } from "../syntax/node.ts";
import { parseFlags } from "./flags.ts";
import type {
  ArgInstruction,
  EnvInstruction,
  ExposeInstruction,
  InstructionBase,
  KeyValue,
  LabelInstruction,
  MaintainerInstruction,
  OnbuildInstruction,
  StopSignalInstruction,
  UserInstruction,
  VolumeInstruction,
  WorkdirInstruction,
} from "./types.ts";

/** What every instruction has, from its node. */
export function baseOf(node: InstructionNode): InstructionBase {
  return {
    name: node.keyword,
    code: trimSpace(node.original),
    location: lineRanges(node.startLine, node.endLine),
    comments: node.comments,
  };
}

/** The rest of the first comment that begins with `name `. */
export function descriptionOf(comments: readonly string[], name: string): string {
  if (name === "") return "";
  const line = comments.find((comment) => comment.startsWith(`${name} `));
  return line === undefined ? "" : line.slice(name.length + 1);
}

/** Throws unless there is an argument. */
export function needSome(node: InstructionNode, keyword: string): void {
  if (node.args.length === 0) throw new Problem(`${keyword} requires at least one argument`);
}

function needOne(node: InstructionNode, keyword: string): string {
  if (node.args.length !== 1) throw new Problem(`${keyword} requires exactly one argument`);
  return node.args[0]!;
}

function noFlags(node: InstructionNode): void {
  parseFlags(node.flags, {});
}

export function parseArg(node: InstructionNode): ArgInstruction {
  needSome(node, "ARG");
  const args = node.args.map((word) => {
    const equals = word.indexOf("=");
    if (equals === 0) throw new Problem("ARG names can not be blank");
    const key = equals < 0 ? word : word.slice(0, equals);
    return {
      key,
      value: equals < 0 ? undefined : word.slice(equals + 1),
      description: descriptionOf(node.comments, key),
    };
  });
  return { ...baseOf(node), kind: "arg", args };
}

function keyValues(node: InstructionNode, keyword: string): KeyValue[] {
  noFlags(node);
  needSome(node, keyword);
  const pairs: KeyValue[] = [];
  for (let i = 0; i < node.args.length; i += 3) {
    const key = node.args[i]!;
    if (key === "") throw new Problem(`${keyword} names can not be blank`);
    pairs.push({ key, value: node.args[i + 1] ?? "", legacy: node.args[i + 2] === "" });
  }
  return pairs;
}

export function parseEnv(node: InstructionNode): EnvInstruction {
  return { ...baseOf(node), kind: "env", pairs: keyValues(node, "ENV") };
}

export function parseLabel(node: InstructionNode): LabelInstruction {
  return { ...baseOf(node), kind: "label", pairs: keyValues(node, "LABEL") };
}

export function parseMaintainer(node: InstructionNode): MaintainerInstruction {
  const maintainer = needOne(node, "MAINTAINER");
  noFlags(node);
  return { ...baseOf(node), kind: "maintainer", maintainer };
}

export function parseWorkdir(node: InstructionNode): WorkdirInstruction {
  const path = needOne(node, "WORKDIR");
  noFlags(node);
  return { ...baseOf(node), kind: "workdir", path };
}

export function parseUser(node: InstructionNode): UserInstruction {
  const user = needOne(node, "USER");
  noFlags(node);
  return { ...baseOf(node), kind: "user", user };
}

/** Flags of STOPSIGNAL are ignored, as BuildKit ignores them. */
export function parseStopSignal(node: InstructionNode): StopSignalInstruction {
  return { ...baseOf(node), kind: "stopsignal", signal: needOne(node, "STOPSIGNAL") };
}

export function parseExpose(node: InstructionNode): ExposeInstruction {
  needSome(node, "EXPOSE");
  noFlags(node);
  return { ...baseOf(node), kind: "expose", ports: [...node.args].sort(compareUtf8) };
}

export function parseVolume(node: InstructionNode): VolumeInstruction {
  needSome(node, "VOLUME");
  noFlags(node);
  const volumes = node.args.map(trimSpace);
  if (volumes.includes("")) throw new Problem("VOLUME specified can not be an empty string");
  return { ...baseOf(node), kind: "volume", volumes };
}

export function parseOnbuild(node: InstructionNode): OnbuildInstruction {
  needSome(node, "ONBUILD");
  noFlags(node);
  const trigger = trimSpace(node.args[0]!).toUpperCase();
  if (trigger === "ONBUILD") throw new Problem("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
  if (trigger === "MAINTAINER" || trigger === "FROM") {
    throw new Problem(`${trigger} isn't allowed as an ONBUILD trigger`);
  }
  let expression = node.original.replace(/^[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*/i, "");
  for (const { name, content } of node.heredocs) expression += `\n${content}${name}`;
  return { ...baseOf(node), kind: "onbuild", expression };
}
