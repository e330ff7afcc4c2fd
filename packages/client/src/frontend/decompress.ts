import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { BuildError } from "@kiln/base";

/** What an archive may uncompress to. */
const MAX_BYTES = 1 << 30;

/** Uncompresses gzip and zstd; plain data stays. @throws BuildError `unimplemented` for bzip2 and xz. */
export async function decompressSmall(data: Uint8Array): Promise<Uint8Array> {
  const starts = (...magic: number[]): boolean => magic.every((byte, i) => data[i] === byte);
  const limits = { maxOutputLength: MAX_BYTES };
  if (starts(0x1f, 0x8b, 0x08)) return await promisify(gunzip)(data, limits);
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return await promisify(zstdDecompress)(data, limits);
  if (starts(0x42, 0x5a, 0x68)) throw unsupported("bzip2");
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) throw unsupported("xz");
  return data;
}

function unsupported(kind: string): BuildError {
  return new BuildError("unimplemented", `a frontend can't uncompress archives of type ${kind}`);
}
