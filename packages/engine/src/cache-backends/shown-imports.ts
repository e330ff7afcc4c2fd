import { AZBLOB_ATTRS } from "./azure/azblob-cache.ts";
import { type AttrSpecs, HIDDEN } from "./cache-attrs.ts";
import { GHA_ATTRS } from "./gha/gha-cache.ts";
import { S3_ATTRS } from "./s3/s3-cache.ts";

const SPECS: ReadonlyMap<string, AttrSpecs> = new Map<string, AttrSpecs>([
  ["s3", S3_ATTRS],
  ["azblob", AZBLOB_ATTRS],
  ["gha", GHA_ATTRS],
]);

/**
 * The frontend attribute `cache-imports` as it may be recorded: without keys, tokens and signatures. A value
 * that can't be read is hidden as a whole.
 */
export function shownCacheImports(json: string): string {
  let entries: unknown;
  try {
    entries = JSON.parse(json);
  } catch {
    return HIDDEN;
  }
  if (!Array.isArray(entries)) return HIDDEN;
  return JSON.stringify(entries.map(shownEntry));
}

function shownEntry(entry: unknown): unknown {
  const { Type: type, Attrs: attrs } = asRecord(entry);
  const specs = SPECS.get(String(type)) ?? {};
  const shown = Object.entries(asRecord(attrs)).map(([name, value]) => {
    const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
    return [name, spec?.shown === undefined ? value : spec.shown(String(value))] as const;
  });
  return { Type: type, Attrs: Object.fromEntries(shown) };
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
