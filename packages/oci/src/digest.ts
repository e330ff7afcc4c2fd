import { BuildError } from "@kiln/base";
import { sha256Hex } from "./sha256.ts";

/** Hash algorithms that a digest may name (github.com/opencontainers/go-digest). */
export type DigestAlgorithm = "sha256" | "sha384" | "sha512";

/** Content digest, `<algorithm>:<lower-case hex>`. Everything that Kiln makes itself is sha256. */
export type Digest = `${DigestAlgorithm}:${string}`;

const HEX_LENGTH: ReadonlyMap<string, number> = new Map([
  ["sha256", 64],
  ["sha384", 96],
  ["sha512", 128],
]);
const FORMAT = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const MAX_LENGTH = 256;

/** What is wrong with `text` as a digest, in go-digest's words; undefined when it is one. */
export function digestProblem(text: string): string | undefined {
  const colon = text.indexOf(":");
  if (colon <= 0 || colon + 1 === text.length || text.length > MAX_LENGTH)
    return "invalid checksum digest format";
  const hexLength = HEX_LENGTH.get(text.slice(0, colon));
  if (hexLength === undefined) {
    return FORMAT.test(text) ? "unsupported digest algorithm" : "invalid checksum digest format";
  }
  const hex = text.slice(colon + 1);
  if (hex.length !== hexLength) return "invalid checksum digest length";
  return /^[a-f0-9]+$/.test(hex) ? undefined : "invalid checksum digest format";
}

/** True for a well-formed digest. */
export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && digestProblem(text) === undefined;
}

/** Reads a digest; throws `invalid_argument` with go-digest's text. */
export function parseDigest(text: string): Digest {
  const problem = digestProblem(text);
  if (problem !== undefined) throw new BuildError("invalid_argument", problem);
  return text as Digest;
}

/** The algorithm of a digest. */
export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(":")) as DigestAlgorithm;
}

/** The hex part of a digest. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** The sha256 digest of bytes, or of a text in UTF-8. */
export function sha256(data: Uint8Array | string): Digest {
  return `sha256:${sha256Hex(data)}`;
}

/**
 * Throws `data_loss` unless `data` has the given sha256 digest. Other algorithms can't be checked here and
 * are refused (`unimplemented`).
 */
export function verifyDigest(data: Uint8Array, digest: Digest): void {
  if (digestAlgorithm(digest) !== "sha256") {
    throw new BuildError("unimplemented", `cannot verify digest ${digest}: only sha256 is supported`);
  }
  const actual = sha256(data);
  if (actual !== digest) throw new BuildError("data_loss", `unexpected digest ${actual}, expected ${digest}`);
}
