import { BuildError } from "@kiln/base";

/** Media type of a cache config. */
export const CACHE_CONFIG_MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0";

/** Most records or layers in a config. */
const MAX_ENTRIES = 200_000;

/** A cache as it is stored in registries; the field names are BuildKit's. Optional fields are left out when empty. */
export interface CacheConfig {
  layers?: CacheConfigLayer[];
  records?: CacheConfigRecord[];
}

/** A layer and what lies below it. */
export interface CacheConfigLayer {
  blob?: string;
  /** Index of the layer below, -1 for none. Left out when 0. */
  parent?: number;
  annotations?: CacheConfigAnnotations;
}

/** What backends without manifests must know of a layer. */
export interface CacheConfigAnnotations {
  mediaType?: string;
  diffID?: string;
  size?: number;
  /** RFC 3339. */
  createdAt: string;
}

/** An output of an op. */
export interface CacheConfigRecord {
  layers?: { layer: number; createdAt: string }[];
  chains?: { layers: number[]; createdAt: string }[];
  digest?: string;
  inputs?: { selector?: string; link: number }[][];
}

/** Writes a config as Go's `encoding/json` does. */
export function formatCacheConfig(config: CacheConfig): string {
  return JSON.stringify(config);
}

/**
 * Reads a config. Unknown fields are ignored.
 *
 * @throws invalid_argument for anything that isn't a config.
 */
export function parseCacheConfig(text: string): CacheConfig {
  const value = parseJson(text);
  if (!isObject(value)) throw invalid("not an object");
  return {
    layers: list(value.layers, "layers").map(parseLayer),
    records: list(value.records, "records").map(parseRecord),
  };
}

/** Reads the records that an image's config has in `moby.buildkit.cache.v0`. */
export function parseInlineRecords(text: string): CacheConfigRecord[] {
  return list(parseJson(text), "records").map(parseRecord);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", "invalid cache config: no JSON", { cause: error });
  }
}

function parseLayer(value: unknown): CacheConfigLayer {
  if (!isObject(value)) throw invalid("layer is no object");
  const layer: CacheConfigLayer = {
    blob: text(value.blob, "blob"),
    parent: integer(value.parent ?? 0, "parent"),
  };
  const annotations = value.annotations;
  if (annotations !== undefined && annotations !== null) layer.annotations = parseAnnotations(annotations);
  return layer;
}

function parseAnnotations(value: unknown): CacheConfigAnnotations {
  if (!isObject(value)) throw invalid("annotations are no object");
  const size = integer(value.size ?? 0, "size");
  if (size < 0) throw invalid("size is negative");
  return {
    mediaType: text(value.mediaType, "mediaType"),
    diffID: text(value.diffID, "diffID"),
    size,
    createdAt: time(value.createdAt),
  };
}

function parseRecord(value: unknown): CacheConfigRecord {
  if (!isObject(value)) throw invalid("record is no object");
  return {
    layers: list(value.layers, "layers").map((result) => {
      if (!isObject(result)) throw invalid("result is no object");
      return { layer: integer(result.layer ?? 0, "layer"), createdAt: time(result.createdAt) };
    }),
    chains: list(value.chains, "chains").map((chain) => {
      if (!isObject(chain)) throw invalid("chain is no object");
      const layers = list(chain.layers, "layers").map((index) => integer(index, "layer"));
      return { layers, createdAt: time(chain.createdAt) };
    }),
    digest: text(value.digest, "digest"),
    inputs: list(value.inputs, "inputs").map((links) => list(links, "inputs").map(parseInput)),
  };
}

function parseInput(value: unknown): { selector?: string; link: number } {
  if (!isObject(value)) throw invalid("input is no object");
  const link = integer(value.link ?? 0, "link");
  const selector = text(value.selector, "selector");
  return selector === "" ? { link } : { selector, link };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(value: unknown, name: string): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(`${name} is no list`);
  if (value.length > MAX_ENTRIES) throw invalid(`${name} has more than ${MAX_ENTRIES} entries`);
  return value;
}

function text(value: unknown, name: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw invalid(`${name} is no text`);
  return value;
}

function integer(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) throw invalid(`${name} is no whole number`);
  return value;
}

function time(value: unknown): string {
  const out = text(value, "createdAt");
  if (out !== "") nanosecondsOf(out);
  return out === "" ? ZERO_TIME : out;
}

/** What Go writes for a time that isn't set. */
const ZERO_TIME = "0001-01-01T00:00:00Z";

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/;

/** Nanoseconds since the epoch of an RFC 3339 time. */
export function nanosecondsOf(time: string): bigint {
  const [, seconds, fraction = "", zone] = RFC3339.exec(time) ?? [];
  const ms = Date.parse(`${seconds}${zone}`);
  if (Number.isNaN(ms)) throw invalid(`createdAt is no time: ${JSON.stringify(time.slice(0, 64))}`);
  return BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}

/** RFC 3339 in UTC, with as many digits after the seconds as needed, as Go writes it. */
export function formatNanoseconds(ns: bigint): string {
  const fraction = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const seconds = new Date(Number((ns - fraction) / 1_000_000n)).toISOString().slice(0, 19);
  const digits = fraction.toString().padStart(9, "0").replace(/0+$/, "");
  return `${seconds}${digits === "" ? "" : `.${digits}`}Z`;
}

function invalid(what: string): BuildError {
  return new BuildError("invalid_argument", `invalid cache config: ${what}`);
}
