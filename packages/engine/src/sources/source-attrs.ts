import { BuildError } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import type { RecordType } from "@kiln/store";

/** Attributes of a source op. */
export type SourceAttrs = ReadonlyMap<string, string>;

/** An integer as Go's `strconv.ParseInt(v, 0, 64)` reads it: `0755` is octal, `0x1f` hex. 0 when absent. */
export function intAttr(attrs: SourceAttrs, key: string): number {
  const text = attrs.get(key);
  if (text === undefined) return 0;
  const match = /^([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))$/.exec(text);
  if (!match) throw invalid(`strconv.ParseInt: parsing ${quoteGo(text)}: invalid syntax`);
  const [, sign, hex, binary, octal, decimal] = match;
  const value = hex
    ? Number.parseInt(hex, 16)
    : binary
      ? Number.parseInt(binary, 2)
      : octal
        ? Number.parseInt(octal, 8)
        : Number(decimal);
  if (!Number.isSafeInteger(value)) {
    throw invalid(`strconv.ParseInt: parsing ${quoteGo(text)}: value out of range`);
  }
  return sign === "-" ? -value : value;
}

/** `image.layerlimit`, `oci.layerlimit`: a number over 0. */
export function layerLimitAttr(attrs: SourceAttrs, key: string): number | undefined {
  const text = attrs.get(key);
  if (text === undefined) return undefined;
  if (!/^\+?\d{1,9}$/.test(text) || Number(text) <= 0) throw invalid(`invalid layer limit ${text}`);
  return Number(text);
}

/** `image.recordtype`. */
export function recordTypeAttr(attrs: SourceAttrs): RecordType | undefined {
  const text = attrs.get("image.recordtype");
  switch (text) {
    case undefined:
      return undefined;
    case "":
    case "regular":
      return "regular";
    case "internal":
    case "frontend":
      return text;
    default:
      throw invalid(`invalid record type ${text}`);
  }
}

/** File attributes that blob and http sources share. */
export interface FileAttrs {
  readonly filename: string;
  readonly perm: number;
  readonly uid: number;
  readonly gid: number;
}

/** `http.filename`, `http.perm`, `http.uid`, `http.gid`. */
export function fileAttrs(attrs: SourceAttrs): FileAttrs {
  return {
    filename: attrs.get("http.filename") ?? "",
    perm: intAttr(attrs, "http.perm"),
    uid: intAttr(attrs, "http.uid"),
    gid: intAttr(attrs, "http.gid"),
  };
}

/** A single file name from anything a client or a server says; `download` when nothing safe is left. */
export function safeFileName(text: string): string {
  const name = text.trim().replace(/\/+$/, "").split("/").at(-1) ?? "";
  if (name === "" || name === "." || name === ".." || /[\u0000-\u001f\u007f-\u009f]/.test(name))
    return "download";
  return name;
}

/** `invalid_argument`. */
export function invalid(message: string, cause?: unknown): BuildError {
  return new BuildError("invalid_argument", message, { cause });
}
