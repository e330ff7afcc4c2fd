import { bytesFromBase64 } from "@kiln/formats";
import type { GoldenCase } from "./golden-backend.ts";
import { type Facets, facetHash } from "./golden-facets.ts";

/** A case with the answer that BuildKit gave, as it lies in `testdata/llb`. */
export interface GoldenFile {
  /** Text, or `base64:…` for what isn't UTF-8. */
  readonly files: Readonly<Record<string, string>>;
  readonly opts?: GoldenCase["opts"];
  readonly locals?: GoldenCase["locals"];
  readonly inputs?: GoldenCase["inputs"];
  readonly expected: Facets;
}

/** Parts that are kept as they are; of the others only a hash is. */
const WHOLE: ReadonlySet<string> = new Set(["error", "errsrc", "head", "raw"]);

/** The short form of an answer: digests of ops, hashes of what is long. */
export function compact(facets: Facets): Facets {
  const out: Facets = {};
  for (const key of Object.keys(facets).sort()) {
    const value = facets[key];
    if (WHOLE.has(key)) out[key] = value;
    else if (key === "ops") out[key] = opDigests(value as Record<string, object>);
    else if (Array.isArray(value) && value.length === 0) out[key] = [];
    else out[key] = facetHash(value);
  }
  return out;
}

function opDigests(refs: Record<string, object>): object {
  return Object.fromEntries(Object.entries(refs).map(([name, ops]) => [name, Object.keys(ops).sort()]));
}

const BASE64 = "base64:";

/** Bytes of a file in a {@link GoldenFile}. */
export function fileBytes(text: string): Uint8Array {
  if (!text.startsWith(BASE64)) return new TextEncoder().encode(text);
  return bytesFromBase64(text.slice(BASE64.length)) ?? new Uint8Array();
}

/** The case that a golden file describes. */
export function caseOf(id: string, golden: GoldenFile): GoldenCase {
  return {
    id,
    files: new Map(Object.entries(golden.files).map(([path, text]) => [path, fileBytes(text)])),
    opts: golden.opts ?? {},
    ...(golden.locals === undefined ? {} : { locals: golden.locals }),
    ...(golden.inputs === undefined ? {} : { inputs: golden.inputs }),
  };
}
