import { csvFields } from "@kiln/formats";
import { quote } from "@kiln/hcl";
import { attestShorthand, parsePolicy } from "./fields/entries.ts";
import { parseCall } from "./output/build-request.ts";
import { cut, fail } from "./problem.ts";

/** Flags of `bake` that are short for overrides of every target. */
export interface BakeFlags {
  readonly push?: boolean;
  readonly load?: boolean;
  readonly call?: string;
  readonly noCache?: boolean;
  readonly pull?: boolean;
  readonly sbom?: string;
  readonly provenance?: string;
  readonly policy?: readonly string[];
}

/** The flags as `--set` texts, and whether policies are switched off altogether. */
export function flagOverrides(flags: BakeFlags): {
  readonly overrides: string[];
  readonly policyDisabled: boolean;
} {
  const overrides: string[] = [];
  if (flags.push === true) overrides.push("*.push=true");
  if (flags.load === true) overrides.push("*.load=true");
  const call = parseCall(flags.call ?? "");
  if (call !== undefined) overrides.push(`*.call=${call.name}`);
  if (flags.noCache !== undefined) overrides.push(`*.no-cache=${flags.noCache}`);
  if (flags.pull !== undefined) overrides.push(`*.pull=${flags.pull}`);
  for (const type of ["sbom", "provenance"] as const) {
    const text = attestShorthand(type, flags[type] ?? "");
    if (text !== "") overrides.push(`*.attest=${text}`);
  }
  const policy = policyOverrides(flags.policy ?? []);
  return { overrides: [...overrides, ...policy.overrides], policyDisabled: policy.policyDisabled };
}

function policyOverrides(texts: readonly string[]): {
  readonly overrides: string[];
  readonly policyDisabled: boolean;
} {
  const overrides: string[] = [];
  for (const text of texts) {
    const { files, reset, disabled, strict, logLevel } = parsePolicy(csvFields(text));
    if (files.length > 0)
      fail("--policy does not accept filename; define policy files in the bake definition");
    if (reset) fail("--policy does not accept reset; define policy composition in the bake definition");
    if (disabled) {
      if (strict !== undefined || logLevel !== undefined || texts.length > 1) {
        fail("disabled policy cannot be combined with other policy flags");
      }
      return { overrides: [], policyDisabled: true };
    }
    overrides.push(`*.policy+=${text}`);
  }
  return { overrides, policyDisabled: false };
}

/** Reads `--var NAME=VALUE`s. */
export function parseVariables(texts: readonly string[]): Map<string, string> {
  const out = new Map<string, string>();
  for (const text of texts) {
    if (text === "") continue;
    const [name, value] = cut(text, "=");
    if (value === undefined) fail(`invalid variable ${quote(text)}, expected key=value`);
    if (name === "") fail(`invalid variable ${quote(text)}, key is empty`);
    out.set(name, value);
  }
  return out;
}
