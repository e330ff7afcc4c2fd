/** Says more about a build's failure than the daemon knows: what hid a file, which file was probably meant. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { suggest } from "@kiln/formats";
import { PatternMatcher, readIgnoreLines } from "@kiln/patterns";
import type { BuildInputs } from "./inputs.ts";

const MAX_IGNORE_FILE_BYTES = 1 << 20;

/** The same error, with a hint when it's about a file that the context lacks. */
export function withMissingFileHint(
  error: unknown,
  build: { readonly inputs: BuildInputs; readonly request: BuildRequest },
): unknown {
  if (!isBuildError(error) || error.hint !== undefined || build.inputs.contextDir === undefined) return error;
  const path = missingPath(errorMessage(error));
  if (path === undefined) return error;
  const hint = hintFor(path, build.inputs.contextDir, build);
  if (hint === undefined) return error;
  return new BuildError(error.code, error.message, { cause: error, wire: error.wire, hint });
}

/** The path in the messages of a COPY whose source isn't there. */
function missingPath(message: string): string | undefined {
  const match = /failed to calculate checksum of ref \S+: "?\/?([^":]+)"?: not found/.exec(message);
  return match?.[1];
}

function hintFor(
  path: string,
  context: string,
  build: { readonly inputs: BuildInputs; readonly request: BuildRequest },
): string | undefined {
  if (existsSync(join(context, path))) {
    const rule = ignoringRule(path, context, build);
    return rule && `${path} is in the context, but ${rule.file}:${rule.line} (${rule.text}) excludes it`;
  }
  const parent = dirname(join(context, path));
  let names: string[];
  try {
    names = readdirSync(parent);
  } catch {
    return undefined;
  }
  const near = suggest(basename(path), names, false);
  return near === undefined ? undefined : `did you mean ${join(dirname(path), near)}?`;
}

function ignoringRule(
  path: string,
  context: string,
  build: { readonly inputs: BuildInputs; readonly request: BuildRequest },
): { readonly file: string; readonly line: number; readonly text: string } | undefined {
  const dockerfileDir = build.inputs.dirs.get("dockerfile");
  const name = build.inputs.attrs.get("filename") ?? "Dockerfile";
  const candidates = [
    ...(dockerfileDir === undefined ? [] : [join(dockerfileDir, `${name}.dockerignore`)]),
    join(context, ".dockerignore"),
  ];
  const file = candidates.find((candidate) => existsSync(candidate));
  if (file === undefined || statSync(file).size > MAX_IGNORE_FILE_BYTES) return undefined;
  const text = readFileSync(file, "utf8");
  for (const rule of readIgnoreLines(text).toReversed()) {
    if (rule.pattern.startsWith("!")) continue;
    if (new PatternMatcher([rule.pattern]).matchesOrParentMatches(path)) {
      return { file: basename(file), line: rule.line, text: rule.pattern };
    }
  }
  return undefined;
}
