import { createHash } from "node:crypto";
import { fromBinary, toJson } from "@bufbuild/protobuf";
import { errorDetailTypes } from "@kiln/api";
import { OpMetadataSchema, OpSchema } from "@kiln/api/pb";
import { isBuildError } from "@kiln/base";
import { type Definition, metadataMessage, type OpMetadata, type Range } from "@kiln/llb";
import { sha256 } from "@kiln/oci";
import { buildDockerfile } from "../frontend/build.ts";
import {
  GoldenBackend,
  type GoldenCase,
  type GoldenImages,
  GoldenRef,
  type GoldenWarning,
} from "./golden-backend.ts";

/** Named parts of an answer, each compared on its own. */
export type Facets = Record<string, unknown>;

const REQUESTS = ["frontend.outline", "frontend.targets", "frontend.lint"];
const MAX_TEXT = 1500;

function hex(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

function rangesText(ranges: readonly Range[]): string {
  return ranges
    .map(({ start, end }) => `${start.line}:${start.character}-${end.line}:${end.character}`)
    .join(",");
}

/** What this package answers to a case. */
export async function answerFacets(golden: GoldenCase, images: GoldenImages): Promise<Facets> {
  const backend = new GoldenBackend(golden, images, undefined);
  const facets: Facets = {};
  try {
    const result = await buildDockerfile(backend);
    const refs = result.refs ?? new Map([["default", result.ref]]);
    const names = [...refs];
    const parts = names.map(([name, ref]): [string, Facets] => [name, refFacets(ref)]);
    for (const key of ["head", "ops", "meta", "source"]) {
      facets[key] = Object.fromEntries(parts.map(([name, part]) => [name, part[key]]));
    }
    Object.assign(facets, metadataFacets(result.metadata));
  } catch (error) {
    if (!isBuildError(error)) throw error;
    facets.error = clientText(error.message, error.wire);
    facets.errsrc = [goCode(error.code), sourcesOf(error.wire)];
  }
  facets.warnings = backend.warnings
    .map(warningFacet)
    .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  for (const id of REQUESTS) {
    facets[id.slice("frontend.".length)] = await requestFacet(golden, images, id);
  }
  return settle(facets);
}

/** Go's client repeats the text of a missing capability. */
function clientText(message: string, wire: readonly { typeUrl: string }[]): string {
  const last = message.replace(/\n+$/, "").split("\n").at(-1)!;
  const isCap = wire.some(({ typeUrl }) => typeUrl === errorDetailTypes.frontendCap);
  return isCap ? `${last}: Unimplemented: ${last}` : last;
}

function goCode(code: string): string {
  const name = code
    .split("_")
    .map((word) => word[0]!.toUpperCase() + word.slice(1))
    .join("");
  return name;
}

function sourcesOf(wire: readonly { typeUrl: string; value: Uint8Array }[]): string[] {
  return wire
    .filter(({ typeUrl }) => typeUrl === errorDetailTypes.source)
    .map(({ value }) => {
      const parsed = JSON.parse(new TextDecoder().decode(value));
      const ranges = (parsed.ranges ?? []).map((range: { start?: object; end?: object }) => ({
        start: { line: 0, character: 0, ...range.start },
        end: { line: 0, character: 0, ...range.end },
      }));
      return `${parsed.info.filename} ${rangesText(ranges)}`;
    });
}

function refFacets(ref: unknown): Facets {
  const definition: Definition | undefined = ref instanceof GoldenRef ? ref.definition : undefined;
  if (definition === undefined) return { head: ["", 0], ops: {}, meta: {}, source: null };
  const ops: Record<string, unknown> = {};
  const meta: Record<string, unknown> = {};
  const groups = groupNames(definition);
  let head: unknown = ["", 0];
  definition.def.forEach((bytes, i) => {
    const digest = sha256(bytes);
    const op = fromBinary(OpSchema, bytes);
    const own = definition.metadata.get(digest);
    const isHead = i === definition.def.length - 1;
    if (isHead) head = [op.inputs[0]!.digest, Number(op.inputs[0]!.index)];
    else ops[digest] = toJson(OpSchema, op);
    if (own !== undefined) meta[isHead ? "head" : digest] = metaFacet(own, groups);
  });
  const source = definition.source!;
  return {
    head,
    ops,
    meta,
    source: {
      infos: source.infos.map((info) => ({
        filename: info.filename,
        language: info.language,
        data: hex(info.data),
        ops: (info.definition?.def ?? []).map((bytes) => sha256(bytes)),
      })),
      locations: Object.fromEntries(
        [...source.locations].map(([digest, list]) => [
          digest,
          list.map(({ sourceIndex, ranges }) => `${sourceIndex} ${rangesText(ranges)}`),
        ]),
      ),
    },
  };
}

/** Random ids of progress groups, by what is in the group. */
function groupNames(definition: Definition): Map<string, string> {
  const members = new Map<string, string[]>();
  for (const [digest, { progressGroup }] of definition.metadata) {
    if (progressGroup === undefined) continue;
    members.set(progressGroup.id, [...(members.get(progressGroup.id) ?? []), digest]);
  }
  return new Map(
    [...members].map(([id, list]) => [id, `group of ${hex(list.sort().join(",")).slice(0, 12)}`]),
  );
}

function metaFacet(own: OpMetadata, groups: ReadonlyMap<string, string>): unknown {
  const group = own.progressGroup;
  const named =
    group === undefined ? own : { ...own, progressGroup: { ...group, id: groups.get(group.id)! } };
  return toJson(OpMetadataSchema, metadataMessage(named));
}

function parsed(bytes: Uint8Array): unknown {
  const text = new TextDecoder().decode(bytes);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function metadataFacets(metadata: ReadonlyMap<string, Uint8Array>): Facets {
  const config: Facets = {};
  const raw: Facets = {};
  const rest: Facets = {};
  for (const [key, value] of metadata) {
    if (/^containerimage\.(?:base\.)?config/.test(key)) {
      config[key] = parsed(value);
      raw[key] = hex(value);
    } else rest[key] = parsed(value);
  }
  return { config, raw, metadata: rest };
}

function warningFacet(warning: GoldenWarning): Facets {
  return {
    data: hex(warning.source.data),
    detail: warning.detail.map((bytes) => new TextDecoder().decode(bytes)),
    file: warning.source.filename,
    level: warning.level,
    range: rangesText(warning.ranges),
    short: warning.message,
    url: warning.url,
    vertex: warning.vertex,
  };
}

async function requestFacet(golden: GoldenCase, images: GoldenImages, id: string): Promise<unknown> {
  try {
    const { metadata } = await buildDockerfile(new GoldenBackend(golden, images, id));
    const extra: Facets = {};
    for (const [key, value] of metadata) {
      if (key !== "result.json") extra[key] = new TextDecoder().decode(value);
    }
    return { result: parsed(metadata.get("result.json")!), extra };
  } catch (error) {
    if (!isBuildError(error)) throw error;
    const sources = sourcesOf(error.wire);
    const text = clientText(error.message, error.wire);
    return {
      error: {
        code: goCode(error.code),
        last: text,
        text: text.includes(": Unimplemented: ") ? text : error.message,
        ...(sources.length === 0 ? {} : { sources }),
      },
    };
  }
}

/** The parts of a recorded answer. */
export function recordedFacets(recorded: Recorded): Facets {
  const { build, sub } = recorded;
  const facets: Facets = {};
  if (build.error !== undefined) {
    facets.error = build.error.last;
    facets.errsrc = [build.error.code, build.error.sources ?? []];
  } else {
    const refs = Object.entries(build.refs ?? {});
    facets.head = Object.fromEntries(refs.map(([name, ref]) => [name, [ref.head, ref.index]]));
    facets.ops = Object.fromEntries(
      refs.map(([name, ref]) => [name, Object.fromEntries(ref.ops.map(({ digest, op }) => [digest, op]))]),
    );
    facets.meta = Object.fromEntries(refs.map(([name, ref]) => [name, ref.meta]));
    facets.source = Object.fromEntries(refs.map(([name, ref]) => [name, ref.source ?? null]));
    facets.config = build.config;
    facets.raw = build.raw;
    facets.metadata = build.metadata;
  }
  facets.warnings = build.warnings;
  for (const [id, value] of Object.entries(sub)) facets[id.slice("frontend.".length)] = value;
  return settle(facets);
}

/** An answer as it was recorded. */
export interface Recorded {
  readonly build: {
    readonly error?: { readonly last: string; readonly code: string; readonly sources?: readonly string[] };
    readonly refs?: Readonly<
      Record<
        string,
        {
          readonly head: string;
          readonly index: number;
          readonly ops: readonly { readonly digest: string; readonly op: unknown }[];
          readonly meta: unknown;
          readonly source?: unknown;
        }
      >
    >;
    readonly config?: unknown;
    readonly raw?: unknown;
    readonly metadata?: unknown;
    readonly warnings: unknown;
  };
  readonly sub: Readonly<Record<string, unknown>>;
}

/** Takes out what the original leaves to chance: the order of findings and of things on one line. */
function settle(facets: Facets): Facets {
  const text = (value: unknown): string => JSON.stringify(sortKeys(value));
  const sorted = (value: unknown): unknown =>
    Array.isArray(value) ? value.toSorted((a, b) => (text(a) < text(b) ? -1 : 1)) : value;
  const out = structuredClone(facets);
  for (const [name, keys] of [
    ["lint", ["warnings"]],
    ["outline", ["args", "secrets", "ssh"]],
  ] as const) {
    const part = out[name] as { result?: Facets; extra?: Record<string, string> } | undefined;
    if (part?.result === undefined) continue;
    for (const key of keys) if (part.result[key]) part.result[key] = sorted(part.result[key]);
    const lines = part.extra?.["result.txt"];
    if (lines !== undefined && !lines.startsWith("<")) {
      part.extra!["result.txt"] = lines.split("\n").sort().join("\n");
    }
  }
  return trim(out) as Facets;
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sortKeys(item)]),
  );
}

const RULES = /(lint violation found for rules: )(\w+(?:, \w+)*)/;

function trim(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(trim);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, trim(item)]));
  }
  if (typeof value !== "string") return value;
  const text = value.replace(
    RULES,
    (_, head: string, rules: string) => head + rules.split(", ").sort().join(", "),
  );
  const length = Array.from(text).length;
  if (length <= MAX_TEXT) return text;
  return `<${length} characters, sha256 ${hex(text).slice(0, 16)}>`;
}

interface OutlineFacet {
  result?: Record<string, { name: string }[]>;
  extra?: Record<string, string>;
}

/**
 * Of a name that several stages declare, the original reports any declaration. Such outlines were recorded
 * without their text; only the names in them are compared.
 */
export function forgetChance(want: Facets, got: Facets): void {
  const recorded = want.outline as OutlineFacet | undefined;
  const own = got.outline as OutlineFacet | undefined;
  if (recorded?.extra?.["result.txt"] !== "" || own?.extra === undefined) return;
  own.extra["result.txt"] = "";
  for (const { result } of [recorded, own]) {
    for (const key of ["args", "secrets", "ssh"]) {
      if (result?.[key]) result[key] = result[key].map(({ name }) => ({ name })).sort(byName);
    }
  }
}

function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : 1;
}

/** Short hash of a part. */
export function facetHash(value: unknown): string {
  return hex(JSON.stringify(sortKeys(value)) ?? "").slice(0, 16);
}

/** The first place where two values differ; undefined when they don't. */
export function firstDifference(want: unknown, got: unknown, path = ""): string | undefined {
  if (Object.is(want, got)) return undefined;
  const isTree = (value: unknown): value is object => typeof value === "object" && value !== null;
  if (!isTree(want) || !isTree(got) || Array.isArray(want) !== Array.isArray(got)) {
    return `${path}: want ${show(want)}, got ${show(got)}`;
  }
  const a = want as Record<string, unknown>;
  const b = got as Record<string, unknown>;
  for (const key of [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()) {
    if (!(key in b)) return `${path}/${key}: missing; want ${show(a[key])}`;
    if (!(key in a)) return `${path}/${key}: unexpected ${show(b[key])}`;
    const found = firstDifference(a[key], b[key], `${path}/${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 700 ? `${text.slice(0, 700)}…` : text;
}
