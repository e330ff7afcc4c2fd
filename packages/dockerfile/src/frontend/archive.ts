const MAGICS: readonly (readonly number[])[] = [
  [0x42, 0x5a, 0x68],
  [0x1f, 0x8b, 0x08],
  [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
  [0x28, 0xb5, 0x2f, 0xfd],
];
const BLOCK = 512;

/** True for the first bytes of a tar file, or of one compressed with gzip, bzip2, xz or zstd. */
export function isArchive(head: Uint8Array): boolean {
  if (MAGICS.some((magic) => magic.every((byte, i) => head[i] === byte))) return true;
  // zstd's skippable frames: 0x184D2A50 to 0x184D2A5F, little endian.
  const skippable = (head[0] ?? 0) >> 4 === 5 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  if (head.length >= 8 && skippable) return true;
  return head.length >= BLOCK && readHeader(head, 0) !== undefined;
}

interface Header {
  readonly size: number;
  readonly mtime: number;
  readonly isFile: boolean;
}

/** The tar header at `at`; undefined when there is none. */
function readHeader(data: Uint8Array, at: number): Header | undefined {
  const block = data.subarray(at, at + BLOCK);
  if (block.length < BLOCK || block.every((byte) => byte === 0)) return undefined;
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : block[i]!;
  if (number(block, 148, 8) !== sum) return undefined;
  const size = number(block, 124, 12);
  const mtime = number(block, 136, 12);
  if (size === undefined || mtime === undefined) return undefined;
  const type = block[156];
  return { size, mtime, isFile: type === 0 || type === 0x30 || type === 0x37 };
}

/** Octal digits, or (with the high bit) a big-endian number. */
function number(block: Uint8Array, at: number, length: number): number | undefined {
  if (block[at]! & 0x80) {
    let value = block[at]! & 0x7f;
    for (let i = 1; i < length; i++) value = value * 256 + block[at + i]!;
    return value;
  }
  const text = String.fromCharCode(...block.subarray(at, at + length))
    .replace(/[\0 ]+$/, "")
    .trim();
  if (text === "") return 0;
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

/** Seconds of the newest regular file in a tar file; undefined when it has none, or is none. */
export function newestFile(data: Uint8Array): bigint | undefined {
  let newest: number | undefined;
  let override: number | undefined;
  for (let at = 0; ; ) {
    const header = readHeader(data, at);
    if (header === undefined) break;
    const body = data.subarray(at + BLOCK, at + BLOCK + header.size);
    const type = data[at + 156];
    if (type === 0x78) override = paxTime(body);
    else {
      const mtime = override ?? header.mtime;
      if (header.isFile && (newest === undefined || mtime > newest)) newest = mtime;
      if (type !== 0x67 && type !== 0x4c && type !== 0x4b) override = undefined;
    }
    at += BLOCK + Math.ceil(header.size / BLOCK) * BLOCK;
  }
  return newest === undefined ? undefined : BigInt(Math.floor(newest));
}

function paxTime(body: Uint8Array): number | undefined {
  const match = /(?:^|\n)[0-9]+ mtime=(-?[0-9]+(?:\.[0-9]+)?)\n/.exec(new TextDecoder().decode(body));
  return match === null ? undefined : Number(match[1]);
}
