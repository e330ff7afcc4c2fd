import { suggest } from "@kiln/formats";
import type { EnvList, Range } from "@kiln/llb";
import { cleanPath } from "@kiln/llb";
import { formatPlatformAll, isReference, normalizePlatform, type Platform } from "@kiln/oci";
import type { PatternMatcher } from "@kiln/patterns";
import { lower, upper } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { ArgInstruction, Instruction, InstructionBase, Stage } from "../instructions/types.ts";
import type { Linter } from "../lint/linter.ts";
import { rules, texts } from "../lint/rules.ts";
import { type Expansion, expand, type LexOptions, type Variables } from "../shell/lex.ts";
import { globalArgs } from "./global-args.ts";
import { platformOrNothing } from "./names.ts";
import type { ArgInfo, Once, StageState } from "./stage-state.ts";

const RESERVED: ReadonlySet<string> = new Set(["context", "scratch"]);

/** Stage names that are reserved or repeated. */
export function checkStageNames(stages: readonly Stage[], linter: Linter): void {
  const seen = new Set<string>();
  for (const { name, location } of stages) {
    if (name === "") continue;
    if (RESERVED.has(name)) linter.run(rules.reservedStageName, location, texts.reservedStageName(name));
    if (seen.has(name)) linter.run(rules.duplicateStageName, location, texts.duplicateStageName(name));
    seen.add(name);
  }
}

/** Keywords in another case than most. */
export function checkCasing(stages: readonly Stage[], linter: Linter): void {
  const keywords = stages.flatMap((stage) => [
    { name: stage.keyword, location: stage.location },
    ...stage.instructions,
  ]);
  let lowerCount = 0;
  let upperCount = 0;
  for (const { name } of keywords) {
    if (name === lower(name)) lowerCount++;
    else if (name === upper(name)) upperCount++;
  }
  const isLower = lowerCount > upperCount;
  for (const { name, location } of keywords) {
    if (name === (isLower ? lower(name) : upper(name))) continue;
    const casing = isLower ? "lowercase" : "uppercase";
    linter.run(rules.consistentInstructionCasing, location, texts.consistentInstructionCasing(name, casing));
  }
}

/** Base names that no build argument can make valid. */
export function checkDefaultBases(
  stages: readonly Stage[],
  instructions: readonly ArgInstruction[],
  options: { readonly args: EnvList; readonly lex: LexOptions; readonly linter: Linter },
): void {
  try {
    const { args } = globalArgs(options.args, instructions, { lex: options.lex, buildArgs: new Map() });
    for (const { baseName, location } of stages) {
      if (isReference(expand(baseName, args, options.lex).text)) continue;
      options.linter.run(rules.invalidDefaultArgInFrom, location, texts.invalidDefaultArgInFrom(baseName));
    }
  } catch (error) {
    // The build will fail for the same reason.
    if (!(error instanceof Problem)) throw error;
  }
}

/** Variables in FROM that no ARG declares. */
export function checkFromArgs(
  unmatched: ReadonlySet<string>,
  known: { readonly args: EnvList; readonly infos: ReadonlyMap<string, ArgInfo> },
  options: { readonly location: readonly Range[]; readonly linter: Linter },
): void {
  if (unmatched.size === 0) return;
  const names = new Set([...known.infos.keys(), ...known.args.keys()]);
  for (const name of unmatched) {
    if (names.has(name)) continue;
    const text = texts.undefinedArgInFrom(name, suggest(name, names, true));
    options.linter.run(rules.undefinedArgInFrom, options.location, text);
  }
}

/** `--platform=$TARGETPLATFORM`, and platforms that are constants. */
export function checkFromPlatform(
  stage: Stage,
  expansion: Expansion,
  options: { readonly args: EnvList; readonly linter: Linter },
): void {
  const { matched, unmatched, text } = expansion;
  const { linter, args } = options;
  const onlyTarget = matched.size === 1 && unmatched.size === 0 && matched.has("TARGETPLATFORM");
  if (onlyTarget && text === (args.get("TARGETPLATFORM") ?? "")) {
    const message = texts.redundantTargetPlatform(stage.platform);
    linter.run(rules.redundantTargetPlatform, stage.location, message);
  }
  if (matched.size > 0 || unmatched.size > 0) return;
  const platform = platformOrNothing(text);
  if (platform === undefined) return;
  if (stage.name.includes(platform.os) || stage.name.includes(platform.architecture)) return;
  const message = texts.fromPlatformFlagConstDisallowed(text);
  linter.run(rules.fromPlatformFlagConstDisallowed, stage.location, message);
}

/** ARGs that don't become variables of the environment. */
export const NON_ENV_ARGS: ReadonlySet<string> = new Set([
  "BUILDKIT_SBOM_SCAN_CONTEXT",
  "BUILDKIT_SBOM_SCAN_STAGE",
]);

/** Variables that aren't set where they are used. */
export function checkVariables(
  instruction: Instruction,
  unmatched: ReadonlySet<string>,
  options: { readonly stage: StageState; readonly variables: Variables; readonly linter: Linter },
): void {
  if (unmatched.size === 0) return;
  const declared = new Set(options.stage.buildArgs.map((arg) => arg.key));
  for (const name of unmatched) {
    if (declared.has(name) || NON_ENV_ARGS.has(name)) continue;
    const text = texts.undefinedVar(name, suggest(name, options.variables.keys(), true));
    options.linter.run(rules.undefinedVar, instruction.location, text);
  }
}

/** An instruction of which only the last counts; the finding is at the one that is lost. */
export function checkOnce(instruction: InstructionBase, once: Once, linter: Linter): void {
  if (once.location !== undefined) {
    const text = texts.multipleInstructionsDisallowed(instruction.name);
    linter.run(rules.multipleInstructionsDisallowed, once.location, text);
  }
  once.location = instruction.location;
}

/** A base image for another platform than was asked for. */
export function checkBasePlatform(
  image: { readonly name: string; readonly platform: Platform },
  expected: Platform,
  options: { readonly location: readonly Range[]; readonly linter: Linter },
): void {
  const actual = image.platform;
  if (expected.os === actual.os && expected.architecture === actual.architecture) return;
  const text = texts.invalidBaseImagePlatform(
    image.name,
    formatPlatformAll(normalizePlatform(expected)),
    formatPlatformAll(normalizePlatform(actual)),
  );
  options.linter.run(rules.invalidBaseImagePlatform, options.location, text);
}

const SECRET = /(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)/i;
const NO_SECRET = /(?:_|^)(?:public|file|version)(?:_|$)/i;

/** Names that promise a secret. */
export function checkSecretName(
  keyword: string,
  key: string,
  options: { readonly location: readonly Range[]; readonly linter: Linter },
): void {
  if (!SECRET.test(key) || NO_SECRET.test(key)) return;
  options.linter.run(
    rules.secretsUsedInArgOrEnv,
    options.location,
    texts.secretsUsedInArgOrEnv(keyword, key),
  );
}

/** A file that the ignore file takes out of the context. Files with exceptions can't be judged. */
export function checkIgnored(
  source: string,
  ignore: PatternMatcher | undefined,
  options: { readonly keyword: "Add" | "Copy"; readonly location: readonly Range[]; readonly linter: Linter },
): void {
  if (ignore === undefined || ignore.hasExclusions) return;
  const path = cleanPath(source);
  const isRoot = path === "." || path === "/";
  if (isRoot && !ignore.patterns.some(({ text }) => text === "*" || text === "**" || text === "**/*")) return;
  if (!ignore.matchesOrParentMatches(path)) return;
  const text = texts.copyIgnoredFile(options.keyword, path);
  options.linter.run(rules.copyIgnoredFile, options.location, text);
}

/** Stages that need each other. Throws a problem with the instructions on the circle. */
export function checkCircles(stages: readonly StageState[]): void {
  const finished = new Set<StageState>();
  for (const start of stages) {
    if (finished.has(start)) continue;
    const path = [{ stage: start, deps: [...start.deps], next: 0 }];
    const open = new Set([start]);
    finished.add(start);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const entry = top.deps[top.next++];
      if (entry === undefined) {
        open.delete(top.stage);
        path.pop();
        continue;
      }
      const [dep] = entry;
      if (open.has(dep)) {
        const locations = path.map(({ deps, next }) => deps[next - 1]![1].location);
        throw new Problem(`circular dependency detected on stage: ${start.label}`, { locations });
      }
      if (finished.has(dep)) continue;
      finished.add(dep);
      open.add(dep);
      path.push({ stage: dep, deps: [...dep.deps], next: 0 });
    }
  }
}
