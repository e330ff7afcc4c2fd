import { posix } from "node:path";
import { BuildError } from "@kiln/base";
import { encodePath } from "@kiln/sys";
import {
  BLOCK,
  checksums,
  FIELD,
  type Field,
  formatPaxTime,
  paddingOf,
  SCHILY_XATTR,
  secondsOf,
} from "./tar-format.ts";
import type { TarFormat, TarHeader, TarType } from "./types.ts";

const TYPE_FLAG: Readonly<Record<Exclude<TarType, "other">, string>> = {
  file: "0",
  link: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
  global: "g",
};

/** PAX keys that stand for fields of the header. */
const BASIC_KEYS = new Set([
  "path",
  "linkpath",
  "size",
  "uid",
  "gid",
  "uname",
  "gname",
  "mtime",
  "atime",
  "ctime",
]);
const MAX_SPECIAL_BYTES = 1 << 20;
const NOT_ASCII = /[^\x01-\x7f]/;

/** Which dialects can hold a header, and the PAX records that it needs. */
interface Choice {
  readonly formats: Set<TarFormat>;
  readonly records: Map<string, Uint8Array>;
  preferPax: boolean;
}

/**
 * Bytes of the header of one entry, extended headers included; its content, padded with {@link tarPadding},
 * and finally {@link tarTrailer} follow.
 *
 * The dialect, the fields and the order of the PAX records are chosen as Go's `archive/tar` writer does, so
 * that equal entries make equal layers.
 *
 * @throws `invalid_argument` for a header that no dialect can hold
 */
export function encodeTarHeader(header: TarHeader): Buffer {
  const entry = header.format === undefined ? withoutFineTimes(header) : header;
  const choice = chooseFormats(entry);
  if (choice.formats.has("ustar")) return ustarHeader(entry);
  if (choice.formats.has("pax")) return paxHeader(entry, choice.records);
  if (choice.formats.has("gnu")) return gnuHeader(entry);
  throw new BuildError(
    "invalid_argument",
    `archive/tar: cannot encode header of ${JSON.stringify(entry.name)}`,
  );
}

/** Zeros that fill the last block of a content of `size` bytes. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc(paddingOf(size));
}

/** The two zero blocks that end an archive. */
export function tarTrailer(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

function withoutFineTimes(header: TarHeader): TarHeader {
  const { atimeNs: _a, ctimeNs: _c, ...rest } = header;
  // Half a second goes up, before 1970 too.
  return { ...rest, mtimeNs: BigInt(secondsOf(header.mtimeNs + 500_000_000n)) * 1_000_000_000n };
}

function chooseFormats(h: TarHeader): Choice {
  const c: Choice = { formats: new Set(["ustar", "pax", "gnu"]), records: new Map(), preferPax: false };
  checkString(c, h, [h.name, 100, "path"]);
  checkString(c, h, [h.linkname ?? "", 100, "linkpath"]);
  checkString(c, h, [h.uname ?? "", 32, "uname"]);
  checkString(c, h, [h.gname ?? "", 32, "gname"]);
  checkNumber(c, h, [h.mode, 8, undefined]);
  checkNumber(c, h, [h.uid, 8, "uid"]);
  checkNumber(c, h, [h.gid, 8, "gid"]);
  checkNumber(c, h, [h.size, 12, "size"]);
  checkNumber(c, h, [h.devmajor ?? 0, 8, undefined]);
  checkNumber(c, h, [h.devminor ?? 0, 8, undefined]);
  checkTime(c, h, [h.mtimeNs, "mtime"]);
  if (h.atimeNs !== undefined) checkTime(c, h, [h.atimeNs, "atime"]);
  if (h.ctimeNs !== undefined) checkTime(c, h, [h.ctimeNs, "ctime"]);
  if (["file", "char", "block", "fifo"].includes(h.type) && h.name.endsWith("/")) {
    throw new BuildError("invalid_argument", "archive/tar: filename may not have trailing slash");
  }
  addRecords(c, h);
  if (h.format !== undefined) {
    const wanted = new Set([h.format]);
    if (h.format === "pax" && !c.preferPax) wanted.add("ustar");
    for (const format of c.formats) if (!wanted.has(format)) c.formats.delete(format);
  }
  return c;
}

function addRecords(c: Choice, h: TarHeader): void {
  if (h.type === "global") keepOnly(c, "pax");
  if (h.xattrs && h.xattrs.size > 0) {
    for (const [name, value] of h.xattrs) c.records.set(SCHILY_XATTR + name, value);
    keepOnly(c, "pax");
  }
  if (h.pax && h.pax.size > 0) {
    for (const [key, value] of h.pax) {
      if (c.records.has(key)) continue;
      const basic = BASIC_KEYS.has(key) || key.startsWith("GNU.sparse.");
      if (h.type === "global" || !basic) c.records.set(key, encodePath(value));
    }
    keepOnly(c, "pax");
  }
  for (const [key, value] of c.records) {
    const text = ["path", "linkpath", "uname", "gname"].includes(key);
    if (key === "" || key.includes("=") || key.includes("\0") || (text && value.includes(0))) {
      throw new BuildError("invalid_argument", `archive/tar: invalid PAX record ${JSON.stringify(key)}`);
    }
  }
}

function keepOnly(c: Choice, format: TarFormat): void {
  const had = c.formats.has(format);
  c.formats.clear();
  if (had) c.formats.add(format);
}

function checkString(c: Choice, h: TarHeader, [text, size, key]: readonly [string, number, string]): void {
  const ascii = !NOT_ASCII.test(text);
  const bytes = ascii ? text.length : encodePath(text).length;
  const tooLong = bytes > size;
  if (text.includes("\0") || (tooLong && key !== "path" && key !== "linkpath")) c.formats.delete("gnu");
  if (!ascii || tooLong) {
    if (key !== "path" || splitUstarPath(text) === undefined) c.formats.delete("ustar");
    c.records.set(key, encodePath(text));
  }
  if (h.pax?.get(key) === text) c.records.set(key, encodePath(text));
}

function checkNumber(
  c: Choice,
  h: TarHeader,
  [value, size, key]: readonly [number, number, string | undefined],
): void {
  if (!Number.isSafeInteger(value)) {
    throw new BuildError("invalid_argument", `archive/tar: cannot encode ${key ?? "number"}=${value}`);
  }
  if (!fitsBase256(size, value)) c.formats.delete("gnu");
  if (!fitsOctal(size, value)) {
    c.formats.delete("ustar");
    if (key === undefined) c.formats.delete("pax");
    else c.records.set(key, Buffer.from(String(value)));
  }
  if (key !== undefined && h.pax?.get(key) === String(value)) c.records.set(key, Buffer.from(String(value)));
}

function checkTime(c: Choice, h: TarHeader, [timeNs, key]: readonly [bigint, string]): void {
  const seconds = secondsOf(timeNs);
  const isMtime = key === "mtime";
  const fits = fitsOctal(12, seconds);
  if (!isMtime || !fits) c.formats.delete("ustar");
  const text = formatPaxTime(timeNs);
  if (!isMtime || !fits || timeNs % 1_000_000_000n !== 0n) {
    c.preferPax = true;
    c.records.set(key, Buffer.from(text));
  }
  if (h.pax?.get(key) === text) c.records.set(key, Buffer.from(text));
}

function fitsOctal(size: number, value: number): boolean {
  return value >= 0 && value < 2 ** ((size - 1) * 3);
}

function fitsBase256(size: number, value: number): boolean {
  return size >= 9 || (value >= -(2 ** ((size - 1) * 8)) && value < 2 ** ((size - 1) * 8));
}

/** Where a long name can be cut into ustar's prefix and name; undefined when it can't. */
function splitUstarPath(name: string): readonly [string, string] | undefined {
  let length = name.length;
  if (length <= 100 || NOT_ASCII.test(name)) return undefined;
  if (length > 156) length = 156;
  else if (name.endsWith("/")) length--;
  const slash = name.lastIndexOf("/", length - 1);
  const suffix = name.length - slash - 1;
  if (slash <= 0 || suffix > 100 || suffix === 0 || slash > 155) return undefined;
  return [name.slice(0, slash), name.slice(slash + 1)];
}

type TextWriter = (block: Buffer, field: Field, text: string) => void;
type NumberWriter = (block: Buffer, field: Field, value: number) => void;

function ustarHeader(h: TarHeader): Buffer {
  const split = splitUstarPath(h.name);
  const block = baseBlock(split ? { ...h, name: split[1] } : h, putText, putOctal);
  if (split) putText(block, FIELD.prefix, split[0]);
  return seal(block, "ustar");
}

function paxHeader(h: TarHeader, records: ReadonlyMap<string, Uint8Array>): Buffer {
  const parts: Buffer[] = [];
  const isGlobal = h.type === "global";
  if (records.size > 0 || isGlobal) {
    const data = Buffer.concat(sortedRecords(records).map(([key, value]) => paxRecord(key, value)));
    if (data.length > MAX_SPECIAL_BYTES)
      throw new BuildError("invalid_argument", "archive/tar: header field too long");
    const slash = h.name.lastIndexOf("/") + 1;
    const local = posix.join(h.name.slice(0, slash), "PaxHeaders.0", h.name.slice(slash));
    const name = isGlobal ? h.name || "GlobalHead.0.0" : local;
    parts.push(...rawFile(name, data, isGlobal ? "g" : "x"));
    if (isGlobal) return Buffer.concat(parts);
  }
  const ascii: TextWriter = (block, field, text) => putText(block, field, toAscii(text));
  parts.push(seal(baseBlock(h, ascii, putOctal), "pax"));
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}

function sortedRecords(records: ReadonlyMap<string, Uint8Array>): [string, Uint8Array][] {
  return [...records].sort(([a], [b]) => Buffer.compare(encodePath(a), encodePath(b)));
}

function paxRecord(key: string, value: Uint8Array): Buffer {
  const keyBytes = encodePath(key);
  const rest = keyBytes.length + value.length + 3;
  let size = rest + String(rest).length;
  if (rest + String(size).length !== size) size = rest + String(size).length;
  return Buffer.concat([Buffer.from(`${size} `), keyBytes, Buffer.from("="), value, Buffer.from("\n")]);
}

function gnuHeader(h: TarHeader): Buffer {
  const parts: Buffer[] = [];
  const name = encodePath(h.name);
  const link = encodePath(h.linkname ?? "");
  const nul = Buffer.of(0);
  if (name.length > 100) parts.push(...rawFile("././@LongLink", Buffer.concat([name, nul]), "L"));
  if (link.length > 100) parts.push(...rawFile("././@LongLink", Buffer.concat([link, nul]), "K"));
  const block = baseBlock(h, putText, putNumber);
  if (h.atimeNs !== undefined) putNumber(block, FIELD.gnuAtime, secondsOf(h.atimeNs));
  if (h.ctimeNs !== undefined) putNumber(block, FIELD.gnuCtime, secondsOf(h.ctimeNs));
  parts.push(seal(block, "gnu"));
  return Buffer.concat(parts);
}

function baseBlock(h: TarHeader, putString: TextWriter, putNumeric: NumberWriter): Buffer {
  const block = Buffer.alloc(BLOCK);
  block[FIELD.typeflag[0]] = h.type === "other" ? (h.typeflag ?? 0) : TYPE_FLAG[h.type].charCodeAt(0);
  putString(block, FIELD.name, h.name);
  putString(block, FIELD.linkname, h.linkname ?? "");
  putNumeric(block, FIELD.mode, h.mode);
  putNumeric(block, FIELD.uid, h.uid);
  putNumeric(block, FIELD.gid, h.gid);
  putNumeric(block, FIELD.size, h.size);
  putNumeric(block, FIELD.mtime, secondsOf(h.mtimeNs));
  putString(block, FIELD.uname, h.uname ?? "");
  putString(block, FIELD.gname, h.gname ?? "");
  putNumeric(block, FIELD.devmajor, h.devmajor ?? 0);
  putNumeric(block, FIELD.devminor, h.devminor ?? 0);
  return block;
}

/** A pseudo file that carries metadata of the next entry. */
function rawFile(name: string, data: Buffer, flag: string): Buffer[] {
  const block = Buffer.alloc(BLOCK);
  block.write(flag, FIELD.typeflag[0], "latin1");
  putText(block, FIELD.name, toAscii(name).slice(0, 100).replace(/\/+$/, ""));
  for (const field of [FIELD.mode, FIELD.uid, FIELD.gid, FIELD.mtime]) putOctal(block, field, 0);
  putOctal(block, FIELD.size, data.length);
  const format = flag === "x" || flag === "g" ? "pax" : "gnu";
  return [seal(block, format), data, tarPadding(data.length)];
}

function seal(block: Buffer, format: TarFormat): Buffer {
  block.write(format === "gnu" ? "ustar  \0" : "ustar\x0000", FIELD.magic[0], "latin1");
  const [at] = FIELD.checksum;
  block.write(checksums(block)[0].toString(8).padStart(6, "0"), at, "latin1");
  block[at + 6] = 0;
  block[at + 7] = 0x20;
  return block;
}

function putText(block: Buffer, [at, length]: Field, text: string): void {
  const bytes = encodePath(text);
  bytes.copy(block, at, 0, Math.min(length, bytes.length));
  // A name that was cut at a slash must not look like a directory's.
  if (bytes.length <= length || block[at + length - 1] !== 0x2f) return;
  let end = length - 1;
  while (end > 0 && block[at + end - 1] === 0x2f) end--;
  block[at + end] = 0;
}

function putOctal(block: Buffer, field: Field, value: number): void {
  const [at, length] = field;
  const fits = fitsOctal(length, value);
  block.write((fits ? value : 0).toString(8).padStart(length - 1, "0"), at, "latin1");
}

function putNumber(block: Buffer, field: Field, value: number): void {
  const [at, length] = field;
  if (fitsOctal(length, value)) {
    putOctal(block, field, value);
    return;
  }
  let rest = BigInt(value);
  for (let i = length - 1; i >= 0; i--) {
    block[at + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at] = (block[at] as number) | 0x80;
}

function toAscii(text: string): string {
  return NOT_ASCII.test(text)
    ? encodePath(text)
        .toString("latin1")
        .replace(/[^\x01-\x7f]/g, "")
    : text;
}
