/** Lower-case hexadecimal digits. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function rotateLeft(value: number, count: number): number {
  return (value << count) | (value >>> (32 - count));
}

/** The message padded to whole blocks, with its length in bits at the end. */
function padded(message: Uint8Array, block: number, bigEndian: boolean): DataView {
  const lengthBytes = block / 8;
  const size = Math.ceil((message.length + 1 + lengthBytes) / block) * block;
  const out = new Uint8Array(size);
  out.set(message);
  out[message.length] = 0x80;
  const view = new DataView(out.buffer);
  const bits = BigInt(message.length) * 8n;
  view.setBigUint64(size - 8, bits, !bigEndian);
  return view;
}

const MD5_SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const MD5_CONSTANTS = Array.from(
  { length: 64 },
  (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32) | 0,
);

function md5Mix(
  i: number,
  [b, c, d]: readonly [number, number, number],
): readonly [mixed: number, word: number] {
  if (i < 16) return [(b & c) | (~b & d), i];
  if (i < 32) return [(d & b) | (~d & c), (5 * i + 1) % 16];
  if (i < 48) return [b ^ c ^ d, (3 * i + 5) % 16];
  return [c ^ (b | ~d), (7 * i) % 16];
}

/** MD5. */
export function md5(message: Uint8Array): Uint8Array {
  const view = padded(message, 64, false);
  const state = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]);
  for (let at = 0; at < view.byteLength; at += 64) {
    let [a, b, c, d] = [state[0]!, state[1]!, state[2]!, state[3]!];
    for (let i = 0; i < 64; i++) {
      const [mixed, word] = md5Mix(i, [b, c, d]);
      const shift = MD5_SHIFTS[Math.floor(i / 16) * 4 + (i % 4)]!;
      const sum = (a + mixed + MD5_CONSTANTS[i]! + view.getInt32(at + word * 4, true)) | 0;
      [a, d, c, b] = [d, c, b, (b + rotateLeft(sum, shift)) | 0];
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
  }
  const out = new DataView(new ArrayBuffer(16));
  for (const [i, word] of state.entries()) out.setInt32(i * 4, word, true);
  return new Uint8Array(out.buffer);
}

/** SHA-1. */
export function sha1(message: Uint8Array): Uint8Array {
  const view = padded(message, 64, true);
  const state = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0]);
  const words = new Int32Array(80);
  for (let at = 0; at < view.byteLength; at += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(at + i * 4);
    for (let i = 16; i < 80; i++)
      words[i] = rotateLeft(words[i - 3]! ^ words[i - 8]! ^ words[i - 14]! ^ words[i - 16]!, 1);
    let [a, b, c, d, e] = [state[0]!, state[1]!, state[2]!, state[3]!, state[4]!];
    for (let i = 0; i < 80; i++) {
      const [mixed, constant] =
        i < 20
          ? [(b & c) | (~b & d), 0x5a827999]
          : i < 40
            ? [b ^ c ^ d, 0x6ed9eba1]
            : i < 60
              ? [(b & c) | (b & d) | (c & d), 0x8f1bbcdc]
              : [b ^ c ^ d, 0xca62c1d6];
      const sum = (rotateLeft(a, 5) + mixed + e + constant + words[i]!) | 0;
      [e, d, c, b, a] = [d, c, rotateLeft(b, 30), a, sum];
    }
    for (const [i, word] of [a, b, c, d, e].entries()) state[i]! += word;
  }
  return bigEndian(state);
}

function bigEndian(words: Int32Array): Uint8Array {
  const out = new DataView(new ArrayBuffer(words.length * 4));
  for (const [i, word] of words.entries()) out.setInt32(i * 4, word);
  return new Uint8Array(out.buffer);
}

function primes(count: number): number[] {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) if (found.every((prime) => n % prime !== 0)) found.push(n);
  return found;
}

/** The first `bits` of the fraction of a number's square or cube root. */
function rootFraction(n: number, degree: 2n | 3n, bits: bigint): bigint {
  const target = BigInt(n) << (bits * degree);
  let low = 0n;
  let high = (BigInt(n) + 1n) << bits;
  while (low + 1n < high) {
    const middle = (low + high) / 2n;
    if (middle ** degree <= target) low = middle;
    else high = middle;
  }
  return low & ((1n << bits) - 1n);
}

let sha256Constants: Int32Array | undefined;

/** SHA-256. */
export function sha256(message: Uint8Array): Uint8Array {
  sha256Constants ??= new Int32Array(primes(64).map((n) => Number(rootFraction(n, 3n, 32n)) | 0));
  const k = sha256Constants;
  const view = padded(message, 64, true);
  const state = new Int32Array(primes(8).map((n) => Number(rootFraction(n, 2n, 32n)) | 0));
  const words = new Int32Array(64);
  const right = (x: number, n: number): number => rotateLeft(x, 32 - n);
  for (let at = 0; at < view.byteLength; at += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(at + i * 4);
    for (let i = 16; i < 64; i++) {
      const x = words[i - 15]!;
      const y = words[i - 2]!;
      const s0 = right(x, 7) ^ right(x, 18) ^ (x >>> 3);
      const s1 = right(y, 17) ^ right(y, 19) ^ (y >>> 10);
      words[i] = words[i - 16]! + s0 + words[i - 7]! + s1;
    }
    const v = Int32Array.from(state);
    for (let i = 0; i < 64; i++) {
      const [a, b, c, e, f, g] = [v[0]!, v[1]!, v[2]!, v[4]!, v[5]!, v[6]!];
      const s1 = right(e, 6) ^ right(e, 11) ^ right(e, 25);
      const t1 = (v[7]! + s1 + ((e & f) ^ (~e & g)) + k[i]! + words[i]!) | 0;
      const s0 = right(a, 2) ^ right(a, 13) ^ right(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      v.copyWithin(1, 0, 7);
      v[4]! += t1;
      v[0] = t1 + t2;
    }
    for (let i = 0; i < 8; i++) state[i]! += v[i]!;
  }
  return bigEndian(state);
}

let sha512Constants: readonly bigint[] | undefined;
const MASK = (1n << 64n) - 1n;

/** SHA-512. */
export function sha512(message: Uint8Array): Uint8Array {
  sha512Constants ??= primes(80).map((n) => rootFraction(n, 3n, 64n));
  const k = sha512Constants;
  const view = padded(message, 128, true);
  const state = primes(8).map((n) => rootFraction(n, 2n, 64n));
  const right = (x: bigint, n: bigint): bigint => ((x >> n) | (x << (64n - n))) & MASK;
  for (let at = 0; at < view.byteLength; at += 128) {
    const words: bigint[] = [];
    for (let i = 0; i < 16; i++) words.push(view.getBigUint64(at + i * 8));
    for (let i = 16; i < 80; i++) {
      const x = words[i - 15]!;
      const y = words[i - 2]!;
      const s0 = right(x, 1n) ^ right(x, 8n) ^ (x >> 7n);
      const s1 = right(y, 19n) ^ right(y, 61n) ^ (y >> 6n);
      words.push((words[i - 16]! + s0 + words[i - 7]! + s1) & MASK);
    }
    let [a, b, c, d, e, f, g, h] = state as [bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint];
    for (let i = 0; i < 80; i++) {
      const s1 = right(e, 14n) ^ right(e, 18n) ^ right(e, 41n);
      const t1 = h + s1 + ((e & f) ^ (~e & MASK & g)) + k[i]! + words[i]!;
      const s0 = right(a, 28n) ^ right(a, 34n) ^ right(a, 39n);
      const t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) & MASK, c, b, a, (t1 + t2) & MASK];
    }
    for (const [i, word] of [a, b, c, d, e, f, g, h].entries()) state[i] = (state[i]! + word) & MASK;
  }
  const out = new DataView(new ArrayBuffer(64));
  for (const [i, word] of state.entries()) out.setBigUint64(i * 8, word);
  return new Uint8Array(out.buffer);
}
