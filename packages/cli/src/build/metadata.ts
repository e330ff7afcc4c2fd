/** What a build leaves on disk and on standard output: image id, metadata file. */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { BuildError, nodeReason } from "@kiln/base";
import { bytesFromBase64, goJson, randomHex } from "@kiln/formats";
import type { VertexWarning } from "@kiln/progress";
import { warningJson } from "@kiln/progress";

type Env = Readonly<Record<string, string | undefined>>;
type Response = ReadonlyMap<string, string>;

/** The digest that stands for the image: its config's, else its manifest's. */
export function imageId(response: Response): string {
  return response.get("containerimage.config.digest") ?? response.get("containerimage.digest") ?? "";
}

/** How much provenance a metadata file gets: `min`, `max`, or none. */
export function metadataProvenanceMode(env: Env): "min" | "max" | "disabled" {
  switch (env.BUILDX_METADATA_PROVENANCE) {
    case "max":
      return "max";
    case "disabled":
    case "false":
    case "0":
      return "disabled";
    default:
      return "min";
  }
}

/** The exporters' answer as JSON values: what is base64 of JSON stands there as that JSON. */
export function decodeResponse(response: Response): Map<string, unknown> {
  const out = new Map<string, unknown>();
  for (const [key, value] of response) {
    const text = key === "result.json" ? value : decodedText(value);
    const decoded = text === undefined ? undefined : parseJson(text);
    out.set(key, isFilled(decoded) ? decoded : value);
  }
  return out;
}

/** The warnings as a metadata file has them. */
export function warningsJson(warnings: readonly VertexWarning[]): unknown {
  return warnings.map(warningJson);
}

/** Writes a file that appears whole or not at all. */
export function writeMetadataFile(path: string, data: unknown): void {
  writeWhole(path, goJson(data, { indent: "  " }));
}

/** Writes the image's id, without a line end. */
export function writeImageId(path: string, id: string): void {
  writeWhole(path, id, "writing image ID file: ");
}

function writeWhole(path: string, text: string, what = ""): void {
  const temporary = `${path}.tmp-${randomHex(6)}`;
  try {
    writeFileSync(temporary, text, { mode: 0o644 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new BuildError("unknown", `${what}open ${path}: ${nodeReason(error)}`, { cause: error });
  }
}

function decodedText(value: string): string | undefined {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(value) || value.length % 4 !== 0) return undefined;
  const bytes = bytesFromBase64(value);
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** True for an object with members, and for a list of objects. */
function isFilled(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (!Array.isArray(value)) return Object.keys(value).length > 0;
  return value.length > 0 && value.every((item) => typeof item === "object" && item !== null);
}
