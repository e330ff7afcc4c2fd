/** Places in a block that are looked at, and how many bytes there. */
const SAMPLES = 16;
const SAMPLE_BYTES = 4096;
/** Of this many bytes on, a block is worth the look. */
const MIN_BYTES = SAMPLES * SAMPLE_BYTES;
/** Random bytes come to about 7.95 bits per byte in a sample, compressed ones to 7.5 at least, machine code to 6, text to 5. */
const MIN_BITS = 7.4;
const MIN_MEAN_BITS = 7.88;
/** Of the 4,096 places in a sample; in random ones hardly ever the same four bytes come twice. */
const MAX_REPEATS = 64;
const TABLE_BITS = 14;

const counts = new Uint32Array(256);
const table = new Uint32Array(1 << TABLE_BITS);

/**
 * Whether a block looks as if no compression could make it smaller: encrypted or well compressed data. Depends on
 * the bytes only. Looks at samples all over the block, so that small compressible parts may be missed; they
 * are never more than a few percent of it.
 */
export function isIncompressible(block: Uint8Array): boolean {
  if (block.length < MIN_BYTES) return false;
  const step = (block.length - SAMPLE_BYTES) / (SAMPLES - 1);
  table.fill(0);
  let total = 0;
  for (let n = 0; n < SAMPLES; n++) {
    const bits = bitsOfSample(block, Math.floor(n * step));
    if (bits < MIN_BITS) return false;
    total += bits;
  }
  return total >= SAMPLES * MIN_MEAN_BITS;
}

/** Bits per byte by the frequency of bytes; 0 when too much comes again. */
function bitsOfSample(block: Uint8Array, from: number): number {
  counts.fill(0);
  let word = 0;
  let repeats = 0;
  for (let at = from; at < from + SAMPLE_BYTES; at++) {
    const byte = block[at] as number;
    counts[byte] = (counts[byte] as number) + 1;
    word = ((word << 8) | byte) >>> 0;
    const slot = Math.imul(word, 0x9e3779b1) >>> (32 - TABLE_BITS);
    if (table[slot] === word) repeats++;
    table[slot] = word;
  }
  if (repeats > MAX_REPEATS) return 0;
  let bits = 0;
  for (const count of counts) {
    if (count > 0) bits -= (count / SAMPLE_BYTES) * Math.log2(count / SAMPLE_BYTES);
  }
  return bits;
}
