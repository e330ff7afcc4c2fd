import { base64FromBytes, goJson } from "@kiln/formats";
import type { Definition, Range, SourceMap } from "@kiln/llb";
import { sha256 } from "@kiln/oci";
import { textFromBytes } from "../base/bytes.ts";
import type { Outline, OutlineAccess } from "../compile/outline.ts";
import type { Stage } from "../instructions/types.ts";
import type { LintWarning } from "../lint/linter.ts";
import type { FrontendResult } from "./backend.ts";
import { metadataJson, rangeJson, sourceInfoJson } from "./errors.ts";
import { opJson, sourceJson } from "./op-json.ts";
import { sourcePrinter } from "./print-source.ts";
import { tabs } from "./tabs.ts";

const encoder = new TextEncoder();

/** What a subrequest returns: no files, only metadata. */
function answer(json: object, rest: Readonly<Record<string, string>>): FrontendResult {
  const metadata = new Map([["result.json", encoder.encode(goJson(json, { indent: "  " }))]]);
  for (const [key, value] of Object.entries(rest)) metadata.set(key, encoder.encode(value));
  return { metadata };
}

const STATUS = "result.statuscode";

function location(ranges: readonly Range[]): object | undefined {
  return ranges.length === 0 ? undefined : { ranges: ranges.map(rangeJson) };
}

/** `frontend.outline`. */
export function outlineAnswer(outline: Outline, data: Uint8Array): FrontendResult {
  const access = ({ name, required, location: at }: OutlineAccess) => ({
    name,
    required: required || undefined,
    location: location(at),
  });
  const json = {
    name: outline.name || undefined,
    description: outline.description || undefined,
    args: some(
      outline.args.map((arg) => ({
        name: arg.name,
        description: arg.description || undefined,
        value: arg.value || undefined,
        location: location(arg.location),
      })),
    ),
    secrets: some(outline.secrets.map(access)),
    ssh: some(outline.ssh.map(access)),
    sources: [base64FromBytes(data)],
  };
  return answer(json, { "result.txt": outlineText(outline), version: "1.0.0" });
}

function some<T>(items: readonly T[]): readonly T[] | undefined {
  return items.length === 0 ? undefined : items;
}

function outlineText({ name, description, args, secrets, ssh }: Outline): string {
  let out = "";
  if (name !== "" || description !== "") {
    const rows = [["TARGET:", name === "" ? "(default)" : name]];
    if (description !== "") rows.push(["DESCRIPTION:", description]);
    out += `${tabs(rows, 1)}\n`;
  }
  if (args.length > 0) {
    const rows = args.map((arg) => [arg.name, arg.value, arg.description]);
    out += `${tabs([["BUILD ARG", "VALUE", "DESCRIPTION"], ...rows], 3)}\n`;
  }
  for (const [title, items] of [
    ["SECRET", secrets],
    ["SSH", ssh],
  ] as const) {
    if (items.length === 0) continue;
    const rows = items.map((item) => [item.name, item.required ? "true" : ""]);
    out += `${tabs([[title, "REQUIRED"], ...rows], 3)}\n`;
  }
  return out;
}

/** `frontend.targets`. */
export function targetsAnswer(stages: readonly Stage[], data: Uint8Array): FrontendResult {
  const last = stages.length - 1;
  const targets = stages.map((stage, i) => ({
    name: stage.name || undefined,
    default: i === last || undefined,
    description: stage.description || undefined,
    base: stage.baseName || undefined,
    platform: stage.platform || undefined,
    location: location(stage.location),
  }));
  const rows = stages.map(({ name, description }, i) => {
    const label = i < last ? name : name === "" ? "(default)" : `${name} (default)`;
    return [label, description];
  });
  return answer(
    { targets: targets.length === 0 ? null : targets, sources: [base64FromBytes(data)] },
    { "result.txt": tabs([["TARGET", "DESCRIPTION"], ...rows], 1), version: "1.0.0" },
  );
}

/** Findings of a Dockerfile, and the problem that ended the compilation. */
export interface LintReport {
  readonly warnings: readonly LintWarning[];
  readonly problem?: { readonly message: string; readonly ranges: readonly Range[] | undefined } | undefined;
}

/** `frontend.lint`. */
export function lintAnswer(report: LintReport, source: SourceMap): FrontendResult {
  const { warnings, problem } = report;
  const json = {
    warnings:
      some(
        warnings.map(({ rule, message, location: ranges }) => ({
          ruleName: rule.name,
          description: rule.description || undefined,
          url: rule.url || undefined,
          detail: message || undefined,
          location: location(ranges) ?? {},
        })),
      ) ?? null,
    sources: [sourceInfoJson(source)],
    buildError: problem && {
      message: problem.message,
      location: problem.ranges === undefined ? {} : (location(problem.ranges) ?? {}),
    },
  };
  const isClean = warnings.length === 0 && problem === undefined;
  return answer(json, {
    "result.txt": lintText(warnings, source),
    [STATUS]: isClean ? "0" : "1",
    version: "1.0.0",
  });
}

/** Findings with excerpts, by line. */
export function lintText(warnings: readonly LintWarning[], source: SourceMap): string {
  const line = (warning: LintWarning): number => warning.location[0]?.start.line ?? 0;
  const print = sourcePrinter(source.filename, textFromBytes(source.data));
  let out = "";
  for (const warning of warnings.toSorted((a, b) => line(a) - line(b))) {
    const { rule, message } = warning;
    out += `\nWARNING: ${rule.name}${rule.url === "" ? "" : ` - ${rule.url}`}\n${message}\n`;
    out += print(warning.location);
  }
  return out;
}

/** `frontend.convertllb`. */
export function convertAnswer(definition: Definition): FrontendResult {
  const ops = new Map(definition.def.map((bytes) => [sha256(bytes), opJson(bytes)]));
  const metadata = new Map([...definition.metadata].map(([digest, own]) => [digest, metadataJson(own)]));
  const source = definition.source === undefined ? {} : sourceJson(definition.source);
  return answer({ def: ops, metadata, source }, { version: "0.1.0" });
}

interface Request {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly opts: readonly { readonly name: string; readonly description: string }[] | null;
}

const REQUESTS: readonly Request[] = [
  {
    name: "frontend.outline",
    version: "1.0.0",
    description: "List all parameters current build target supports",
    opts: [{ name: "target", description: "Target build stage" }],
  },
  {
    name: "frontend.targets",
    version: "1.0.0",
    description: "List all targets current build supports",
    opts: [],
  },
  {
    name: "frontend.subrequests.describe",
    version: "1.0.0",
    description: "List available subrequest types",
    opts: null,
  },
];

/** `frontend.subrequests.describe`. */
export function describeAnswer(): FrontendResult {
  const json = REQUESTS.map(({ name, version, description, opts }) => ({
    name,
    version,
    type: "rpc",
    description,
    opts,
    inputs: null,
    metadata: ["result.json", "result.txt"].map((key) => ({ name: key, description: "" })),
    refs: null,
  }));
  const rows = REQUESTS.map(({ name, version, description }) => [
    name.replace(/^frontend\./, ""),
    version,
    description,
  ]);
  const text = tabs([["NAME", "VERSION", "DESCRIPTION"], ...rows], 1);
  return answer(json, { "result.txt": text, version: "1.0.0" });
}
