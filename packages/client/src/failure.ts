/** What a daemon's error says besides its text. */
import { errorDetailTypes } from "@kiln/api";
import { isBuildError, type WireDetail } from "@kiln/base";
import { bytesFromBase64 } from "@kiln/formats";
import type { SourceFile, SourceRange } from "@kiln/progress";

/** The typed details of a failed build. */
export interface BuildFailure {
  /** Places in the user's files, the innermost first. */
  readonly sources: readonly { readonly source: SourceFile; readonly ranges: readonly SourceRange[] }[];
  /** Digest of the step that failed. */
  readonly vertex?: string;
  /** Exit code of the process that failed. */
  readonly exitCode?: number;
  /** What a policy said when it refused a source. */
  readonly denyMessages: readonly string[];
}

/** The details of an error, empty for one that has none. Details that can't be read are left out. */
export function failureOf(error: unknown): BuildFailure {
  const details = isBuildError(error) ? error.wire : [];
  const sources = details
    .filter((detail) => detail.typeUrl === errorDetailTypes.source)
    .flatMap((detail) => sourceOf(jsonOf(detail)) ?? [])
    .reverse();
  const vertex = textOf(firstOf(details, errorDetailTypes.vertex)?.digest);
  const exitCode = firstOf(details, errorDetailTypes.exitMessage)?.Code;
  return {
    sources,
    denyMessages: denyMessages(firstOf(details, errorDetailTypes.decisionResponse)),
    ...(vertex === "" ? {} : { vertex }),
    ...(typeof exitCode === "number" ? { exitCode } : {}),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function firstOf(details: readonly WireDetail[], typeUrl: string): Fields | undefined {
  const detail = details.find((candidate) => candidate.typeUrl === typeUrl);
  return detail && jsonOf(detail);
}

function jsonOf(detail: WireDetail): Fields {
  try {
    return fieldsOf(JSON.parse(new TextDecoder().decode(detail.value)));
  } catch {
    return {};
  }
}

function sourceOf(fields: Fields): BuildFailure["sources"][number] | undefined {
  const info = fieldsOf(fields.info);
  const data = bytesFromBase64(textOf(info.data));
  if (data === undefined) return undefined;
  const source = { filename: textOf(info.filename), data, language: textOf(info.language) };
  return { source, ranges: listOf(fields.ranges).map(rangeOf) };
}

function rangeOf(fields: Fields): SourceRange {
  const at = (position: Fields): SourceRange["start"] => ({
    line: numberOf(position.line),
    character: numberOf(position.character),
  });
  return { start: at(fieldsOf(fields.start)), end: at(fieldsOf(fields.end)) };
}

function denyMessages(fields: Fields | undefined): string[] {
  const list = listOf(fields?.deny_messages ?? fields?.denyMessages);
  return list.map((item) => textOf(item.message)).filter((message) => message !== "");
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fieldsOf) : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}
