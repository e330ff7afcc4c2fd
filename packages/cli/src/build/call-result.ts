/** Prints what `--call` asked a frontend for. */
import type { CallOption } from "@kiln/bake";
import { BuildError, errorMessage } from "@kiln/base";
import { bytesFromBase64 } from "@kiln/formats";
import { type SourceRange, sanitizeText, sourceExcerpt } from "@kiln/progress";
import { callTexts, isNewerAnswer } from "./call-texts.ts";

/** What is printed, and the exit code that goes with it. */
export interface CallOutput {
  readonly text: string;
  readonly exitCode: number;
  /** Why the file can't be checked to its end. */
  readonly failure?: BuildError;
}

/**
 * The text for a result. `dockerfile` is how the user named the Dockerfile.
 */
export function callOutput(
  call: CallOption,
  response: ReadonlyMap<string, string>,
  dockerfile: string,
): CallOutput {
  const json = response.get("result.json");
  const exitCode = call.ignoreStatus ? 0 : statusCode(response.get("result.statuscode"));
  const text = response.get("result.txt");
  const version = response.get("version") ?? "";
  if (call.name === "lint" && (call.format === "json" || text === undefined || !isNewerAnswer(version))) {
    return lintOutput(call, json, { dockerfile, exitCode });
  }
  if (call.format === "json" && json !== undefined) return { text: `${json}\n`, exitCode };
  const print = Object.hasOwn(callTexts, call.name) ? callTexts[call.name] : undefined;
  if (print !== undefined && json !== undefined && (text === undefined || !isNewerAnswer(version))) {
    return { text: sanitizeText(print(parseAnswer(json))), exitCode };
  }
  return { text: sanitizeText(text ?? ""), exitCode };
}

interface LintResult {
  readonly warnings?: readonly {
    readonly ruleName: string;
    readonly description?: string;
    readonly url?: string;
    readonly detail?: string;
    readonly location?: LintLocation;
  }[];
  readonly sources?: readonly ({ readonly filename?: string; readonly data?: string } | null)[];
  readonly buildError?: { readonly message: string; readonly location?: LintLocation };
}

interface LintLocation {
  readonly sourceIndex?: number;
  readonly ranges?: readonly { readonly start?: LintPosition; readonly end?: LintPosition }[];
}

interface LintPosition {
  readonly line?: number;
  readonly character?: number;
}

function lintOutput(
  call: CallOption,
  json: string | undefined,
  opts: { readonly dockerfile: string; readonly exitCode: number },
): CallOutput {
  const result = JSON.parse(json ?? "{}") as LintResult;
  const warnings = [...(result.warnings ?? [])].sort(
    (a, b) => (rangesOf(a.location)[0]?.start.line ?? 0) - (rangesOf(b.location)[0]?.start.line ?? 0),
  );
  let text = "";
  if (warnings.length === 1) text += "Check complete, 1 warning has been found!\n";
  else if (warnings.length > 1) text += `Check complete, ${warnings.length} warnings have been found!\n`;
  for (const warning of warnings) {
    text += `\nWARNING: ${warning.ruleName}${warning.url ? ` - ${warning.url}` : ""}\n${warning.detail ?? ""}\n`;
    const excerpt = excerptOf(result, warning.location, opts.dockerfile);
    text += excerpt;
  }
  const failure = failureOf(result, opts.dockerfile);
  const status = failure === undefined ? { exitCode: opts.exitCode } : { exitCode: 1, failure };
  if (call.format === "json") return { text: `${json ?? ""}\n`, ...status };
  if (failure) return { text: warnings.length > 0 ? `${sanitizeText(text)}\n` : "", ...status };
  if (warnings.length === 0) text += "Check complete, no warnings found.\n";
  return { text: sanitizeText(text), exitCode: opts.exitCode };
}

/** Why the file can't be checked to its end. */
function failureOf(result: LintResult, dockerfile: string): BuildError | undefined {
  const { buildError } = result;
  if (!buildError) return undefined;
  const place = excerptOf(result, buildError.location, dockerfile);
  return new BuildError("unknown", `${buildError.message}\n${place}`);
}

function parseAnswer(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new BuildError("unknown", `the frontend's answer is no JSON: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function excerptOf(result: LintResult, location: LintLocation | undefined, dockerfile: string): string {
  const source = result.sources?.[location?.sourceIndex ?? 0];
  if (!source) return "";
  const data = bytesFromBase64(source.data ?? "") ?? new Uint8Array();
  return sourceExcerpt(
    { filename: dockerfile || (source.filename ?? ""), data, language: "Dockerfile" },
    rangesOf(location),
  );
}

function rangesOf(location: LintLocation | undefined): SourceRange[] {
  const at = (position: LintPosition | undefined): SourceRange["start"] => ({
    line: position?.line ?? 0,
    character: position?.character ?? 0,
  });
  return (location?.ranges ?? []).map((range) => ({ start: at(range.start), end: at(range.end) }));
}

function statusCode(text: string | undefined): number {
  const code = Number(text);
  return Number.isInteger(code) && code > 0 ? code : 0;
}
