import { isBuildError } from "@kiln/base";
import { formatPlatformAll, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { upper } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { expand, type LexOptions, type Variables } from "../shell/lex.ts";
import type { StageState } from "./stage-state.ts";

/** The first word in upper case. */
export function upperFirstWord(text: string): string {
  const space = text.indexOf(" ");
  return space < 0 ? upper(text) : upper(text.slice(0, space)) + text.slice(space);
}

/** Expands the variables of an instruction for its name; what can't be expanded stays. */
export function expandName(text: string, variables: Variables, lex: LexOptions): string {
  try {
    return expand(text, variables, lex).text;
  } catch (error) {
    if (error instanceof Problem) return text;
    throw error;
  }
}

/** `[linux/arm64 stage 2/7] …`; counts the stage's steps. */
export function stepName(
  stage: StageState,
  text: string,
  where: { readonly platform: Platform | undefined; readonly variables: Variables },
): string {
  if (stage.stepCount === 0) return text;
  let prefix = "[";
  if (stage.showsPlatform && where.platform !== undefined) {
    prefix += `${formatPlatformAll(where.platform)}${crossSuffix(where.platform, where.variables)} `;
  }
  if (stage.label !== "") prefix += `${stage.label} `;
  stage.step++;
  const width = Math.trunc(1 + log10(stage.stepCount));
  prefix += `${String(stage.step).padStart(width)}/${stage.stepCount}] `;
  return `${prefix}${stage.isReplaying ? "ONBUILD " : ""}${text}`;
}

/** Decimal logarithm of 2, rounded once. */
const LOG10_2 = 0.3010299956639812;

/** Go's `math.Log10`, which falls short of 3 at 1000. */
function log10(value: number): number {
  const exponent = Math.floor(Math.log2(value)) + 1;
  const fraction = value / 2 ** exponent;
  const log2 = fraction === 0.5 ? exponent - 1 : Math.log(fraction) * Math.LOG2E + exponent;
  return log2 * LOG10_2;
}

/** `->arm64` when the stage builds for another platform than it runs on. */
function crossSuffix(base: Platform, variables: Variables): string {
  const target = targetPlatform(variables);
  if (target === undefined) return "";
  const platform = normalizePlatform({
    ...target,
    os: target.os || base.os,
    architecture: target.architecture || base.architecture,
  });
  if (platform.os !== base.os) return `->${formatPlatformAll(platform)}`;
  if (platform.architecture === base.architecture) return "";
  return `->${platform.architecture}${platform.variant ? `/${platform.variant}` : ""}`;
}

/** The platform that TARGETPLATFORM or its parts name. */
function targetPlatform(variables: Variables): Platform | undefined {
  const parts = { os: "", architecture: "", variant: "" };
  let isSet = false;
  for (const key of variables.keys()) {
    if (key === "TARGETPLATFORM") {
      const parsed = platformOrNothing(variables.get(key) ?? "");
      if (parsed !== undefined) return parsed;
      continue;
    }
    const part = PARTS.get(key);
    if (part === undefined) continue;
    parts[part] = variables.get(key) ?? "";
    isSet = true;
  }
  return isSet ? { ...parts, variant: parts.variant || undefined } : undefined;
}

const PARTS: ReadonlyMap<string, "os" | "architecture" | "variant"> = new Map([
  ["TARGETOS", "os"],
  ["TARGETARCH", "architecture"],
  ["TARGETVARIANT", "variant"],
] as const);

/** A platform, or undefined for text that names none. */
export function platformOrNothing(text: string): Platform | undefined {
  try {
    return parsePlatform(text);
  } catch (error) {
    if (isBuildError(error)) return undefined;
    throw error;
  }
}
