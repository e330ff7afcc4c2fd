import { createHash } from "node:crypto";
import type { Digest } from "@kiln/oci";

export type { Descriptor, Digest } from "@kiln/oci";

/** The sha256 digest of bytes. */
export function goodDigest(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
