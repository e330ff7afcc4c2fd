import { parseArgs } from "node:util";
import { errorMessage } from "@kiln/base";
import { filesFromEnvironment, readBakeFiles } from "../files.ts";
import type { BakeHost } from "../host.ts";
import { type BakeFailure, type BakeOptions, type BakeOutcome, readBake, readDefinition } from "../read.ts";

/** What a run gives. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const TEXT = { type: "string" } as const;
const TEXTS = { type: "string", multiple: true } as const;
const FLAG = { type: "boolean" } as const;

/** Takes a bool flag out of the arguments; it may have a value: `--pull=false`. */
function boolFlag(args: string[], name: string): boolean | undefined {
  let value: boolean | undefined;
  for (let i = args.length - 1; i >= 0; i--) {
    const match = new RegExp(`^--${name}(?:=(.*))?$`).exec(args[i] ?? "");
    if (match === null) continue;
    value ??= match[1] !== "false";
    args.splice(i, 1);
  }
  return value;
}

function present<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function unwrap<T>(outcome: BakeOutcome<T>, onFailure: (failure: BakeFailure) => void): T {
  if (outcome.ok) return outcome.value;
  onFailure(outcome.failure);
  throw new Error(outcome.failure.message);
}

/** `bake --print` and `bake --list` without anything around them. */
export function runCommand(given: readonly string[], host: BakeHost, stdin: () => Uint8Array): CommandResult {
  let stderr = "";
  try {
    const stdout = evaluateCommand(given, host, { stdin, onFailure: ({ excerpt }) => (stderr += excerpt) });
    return { code: 0, stdout, stderr };
  } catch (error) {
    return { code: 1, stdout: "", stderr: `${stderr}ERROR: ${errorMessage(error)}\n` };
  }
}

interface Surroundings {
  readonly stdin: () => Uint8Array;
  readonly onFailure: (failure: BakeFailure) => void;
}

function evaluateCommand(
  given: readonly string[],
  host: BakeHost,
  { stdin, onFailure }: Surroundings,
): string {
  const args = given[0] === "bake" ? given.slice(1) : [...given];
  const flags = present({
    noCache: boolFlag(args, "no-cache"),
    pull: boolFlag(args, "pull"),
    push: boolFlag(args, "push"),
    load: boolFlag(args, "load"),
  });
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      file: { ...TEXTS, short: "f" },
      set: TEXTS,
      var: TEXTS,
      allow: TEXTS,
      policy: TEXTS,
      list: TEXT,
      call: TEXT,
      sbom: TEXT,
      provenance: TEXT,
      progress: TEXT,
      print: FLAG,
      check: FLAG,
    },
  });
  if (values.print === true && values.list !== undefined)
    throw new Error("--print and --list are mutually exclusive");
  const files = readBakeFiles(values.file ?? filesFromEnvironment(host) ?? [], host, stdin);
  const { set, var: vars, allow, policy, sbom, provenance } = values;
  const call = values.check === true ? "check" : values.call;
  const texts = present({ set, vars, allow, policy, sbom, provenance, call });
  const options: BakeOptions = { targets: positionals, ...flags, ...texts };
  if (values.list !== undefined)
    return unwrap(readDefinition(files, host, options), onFailure).list(values.list);
  return unwrap(readBake(files, host, options), onFailure).print();
}
