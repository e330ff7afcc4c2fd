import { createHash } from "node:crypto";
import { type GoJson, goJsonText } from "../cache-digest/go-json.ts";

/** Cache digest of an op: sha256 of the Go-style JSON text of `value`. */
export function jsonDigest(value: GoJson): string {
  return `sha256:${createHash("sha256").update(goJsonText(value)).digest("hex")}`;
}
