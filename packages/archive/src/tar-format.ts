import { BuildError } from "@kiln/base";

/** Bytes of a tar block. */
export const BLOCK = 512;

/** Offset and length of the fields of a header block. */
export const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  typeflag: [156, 1],
  linkname: [157, 100],
  magic: [257, 6],
  version: [263, 2],
  uname: [265, 32],
  gname: [297, 32],
  devmajor: [329, 8],
  devminor: [337, 8],
  prefix: [345, 155],
  gnuAtime: [345, 12],
  gnuCtime: [357, 12],
  gnuSparse: [386, 96],
  gnuIsExtended: [482, 1],
  gnuRealSize: [483, 12],
  starAtime: [476, 12],
  starCtime: [488, 12],
  starTrailer: [508, 4],
} as const satisfies Record<string, readonly [number, number]>;

export type Field = readonly [number, number];

/** Prefix of the PAX records that hold extended attributes, as star, Go and libarchive write them. */
export const SCHILY_XATTR = "SCHILY.xattr.";

/** The error of a tar file that isn't one, in Go's words. */
export function invalidHeader(detail?: string): BuildError {
  return new BuildError(
    "invalid_argument",
    `archive/tar: invalid tar header${detail === undefined ? "" : ` (${detail})`}`,
  );
}

/** Bytes that fill up the last block of `size` bytes. */
export function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** Sum of a header's bytes, unsigned and signed, the checksum field counted as spaces. */
export function checksums(block: Uint8Array): readonly [number, number] {
  let unsigned = 0;
  let signed = 0;
  const [at, length] = FIELD.checksum;
  for (let i = 0; i < BLOCK; i++) {
    const byte = i >= at && i < at + length ? 0x20 : (block[i] as number);
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  return [unsigned, signed];
}

const NANOS = 1_000_000_000n;

/** Whole seconds of a time, rounded down. */
export function secondsOf(timeNs: bigint): number {
  const nanos = ((timeNs % NANOS) + NANOS) % NANOS;
  return Number((timeNs - nanos) / NANOS);
}

/** A time as PAX writes it: `-1.5`, `12`, `0.000000001`. */
export function formatPaxTime(timeNs: bigint): string {
  const negative = timeNs < 0n;
  const value = negative ? -timeNs : timeNs;
  const whole = value / NANOS;
  const fraction = value % NANOS;
  if (fraction === 0n) return `${negative ? "-" : ""}${whole}`;
  return `${negative ? "-" : ""}${whole}.${String(fraction).padStart(9, "0").replace(/0+$/, "")}`;
}

/** Reads PAX's form of a time; digits beyond nanoseconds are dropped. @throws `invalid_argument` */
export function parsePaxTime(text: string): bigint {
  const match = /^([+-]?)(\d{1,19})(?:\.(\d*))?$/.exec(text);
  if (!match) throw invalidHeader(`time ${JSON.stringify(text)}`);
  const nanos = BigInt((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  const value = BigInt(match[2] as string) * NANOS + nanos;
  return match[1] === "-" ? -value : value;
}
