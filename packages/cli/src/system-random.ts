import { closeSync, openSync, readSync } from "node:fs";
import { useRandomBytes } from "@kiln/formats";

/** Bytes that are fetched at a time; enough for the identifiers of a build. */
const POOL_BYTES = 256;

/** Identifiers get their randomness from the kernel, without Node's cryptography, which takes long to load. */
export function useSystemRandom(): void {
  let pool = Buffer.alloc(0);
  useRandomBytes((count) => {
    if (pool.length < count) pool = readSystemRandom(Math.max(POOL_BYTES, count));
    const bytes = pool.subarray(0, count);
    pool = pool.subarray(count);
    return bytes;
  });
}

function readSystemRandom(count: number): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(count);
  const file = openSync("/dev/urandom", "r");
  try {
    for (let at = 0; at < count; ) at += readSync(file, bytes, at, count - at, null);
  } finally {
    closeSync(file);
  }
  return bytes;
}
