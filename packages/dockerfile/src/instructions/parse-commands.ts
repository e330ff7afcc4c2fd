import { isBuildError } from "@kiln/base";
import { parseDuration, quoteGo } from "@kiln/formats";
import { Problem } from "../base/problem.ts";
import type { InstructionNode } from "../syntax/node.ts";
import { type Flags, parseFlags } from "./flags.ts";
import { parseDevice, parseMount } from "./mount.ts";
import { baseOf, needSome } from "./parse-simple.ts";
import type {
  CmdInstruction,
  CommandLine,
  EntrypointInstruction,
  HealthcheckInstruction,
  RunInstruction,
  ShellInstruction,
} from "./types.ts";

/** The words of a JSON array, or the whole text as one. */
function commandWords(args: readonly string[], json: boolean): readonly string[] {
  return json || args.length === 0 ? args : [args.join(" ")];
}

function commandLine(node: InstructionNode): CommandLine {
  return {
    args: commandWords(node.args, node.json),
    shell: !node.json,
    files: node.heredocs.map(({ name, content, chomp }) => ({ name, data: content, chomp })),
  };
}

export function parseRun(node: InstructionNode): RunInstruction {
  const flags = parseFlags(node.flags, {
    mount: "strings",
    network: "string",
    security: "string",
    device: "strings",
  });
  const mountFlags = flags.list("mount");
  const devices = flags.list("device").map(parseDevice);
  const mounts = mountFlags.map((flag) => parseMount(flag));
  return {
    ...baseOf(node),
    kind: "run",
    command: commandLine(node),
    mountFlags,
    mounts,
    network: networkOf(node, flags),
    security: securityOf(node, flags),
    devices,
  };
}

function given(node: InstructionNode, name: string): boolean {
  return node.flags.some((flag) => flag.startsWith(`--${name}=`));
}

function networkOf(node: InstructionNode, flags: Flags): RunInstruction["network"] {
  const value = given(node, "network") ? flags.text("network") : "default";
  if (value === "default" || value === "none" || value === "host") return value;
  throw new Problem(`invalid network mode ${quoteGo(value)}`);
}

function securityOf(node: InstructionNode, flags: Flags): RunInstruction["security"] {
  const value = given(node, "security") ? flags.text("security") : "sandbox";
  if (value === "sandbox" || value === "insecure") return value;
  throw new Problem(`security ${quoteGo(value)} is not valid`);
}

export function parseCmd(node: InstructionNode): CmdInstruction {
  parseFlags(node.flags, {});
  return { ...baseOf(node), kind: "cmd", command: commandLine(node) };
}

export function parseEntrypoint(node: InstructionNode): EntrypointInstruction {
  parseFlags(node.flags, {});
  return { ...baseOf(node), kind: "entrypoint", command: commandLine(node) };
}

export function parseShell(node: InstructionNode): ShellInstruction {
  parseFlags(node.flags, {});
  if (node.args.length === 0) throw new Problem("SHELL requires at least one argument");
  if (!node.json) throw new Problem("SHELL requires the arguments to be in JSON form");
  return { ...baseOf(node), kind: "shell", shell: node.args };
}

const MIN_INTERVAL_NS = 1_000_000n;

function interval(flags: Flags, name: string): bigint {
  const text = flags.text(name);
  if (text === "") return 0n;
  let ns: bigint;
  try {
    ns = parseDuration(text);
  } catch (error) {
    if (isBuildError(error)) throw new Problem(error.message);
    throw error;
  }
  if (ns !== 0n && ns < MIN_INTERVAL_NS) {
    throw new Problem(`Interval ${quoteGo(name)} cannot be less than 1ms`);
  }
  return ns;
}

function retriesOf(flags: Flags): number {
  const text = flags.text("retries");
  if (text === "") return 0;
  if (!/^[+-]?[0-9]+$/.test(text)) {
    throw new Problem(`strconv.ParseInt: parsing ${quoteGo(text)}: invalid syntax`);
  }
  const retries = Number(text);
  if (retries > 0x7fffffff || retries < -0x80000000) {
    throw new Problem(`strconv.ParseInt: parsing ${quoteGo(text)}: value out of range`);
  }
  if (retries < 0) throw new Problem(`--retries cannot be negative (${retries})`);
  return retries;
}

export function parseHealthcheck(node: InstructionNode): HealthcheckInstruction {
  needSome(node, "HEALTHCHECK");
  const type = node.args[0]!.toUpperCase();
  const args = node.args.slice(1);
  const base = { ...baseOf(node), kind: "healthcheck" } as const;
  if (type === "NONE") {
    if (args.length > 0) throw new Problem("HEALTHCHECK NONE takes no arguments");
    const none = { intervalNs: 0n, timeoutNs: 0n, startPeriodNs: 0n, startIntervalNs: 0n, retries: 0 };
    return { ...base, test: ["NONE"], ...none };
  }
  const flags = parseFlags(node.flags, {
    interval: "string",
    timeout: "string",
    "start-period": "string",
    "start-interval": "string",
    retries: "string",
  });
  if (type !== "CMD") throw new Problem(`Unknown type ${quoteGo(type)} in HEALTHCHECK (try CMD)`);
  const words = commandWords(args, node.json);
  if (words.length === 0) throw new Problem("Missing command after HEALTHCHECK CMD");
  return {
    ...base,
    test: [node.json ? "CMD" : "CMD-SHELL", ...words],
    intervalNs: interval(flags, "interval"),
    timeoutNs: interval(flags, "timeout"),
    startPeriodNs: interval(flags, "start-period"),
    startIntervalNs: interval(flags, "start-interval"),
    retries: retriesOf(flags),
  };
}
