import { decodePath } from "@kiln/sys";
import {
  BLOCK,
  checksums,
  FIELD,
  type Field,
  invalidHeader,
  parsePaxTime,
  SCHILY_XATTR,
} from "./tar-format.ts";
import type { TarFormat, TarHeader, TarType } from "./types.ts";

/** A header while it is put together. */
export type MutableHeader = { -readonly [Key in keyof TarHeader]: TarHeader[Key] };

const TYPES: ReadonlyMap<string, TarType> = new Map([
  ["0", "file"],
  ["\0", "file"],
  ["S", "file"],
  ["1", "link"],
  ["2", "symlink"],
  ["3", "char"],
  ["4", "block"],
  ["5", "dir"],
  ["6", "fifo"],
  ["g", "global"],
]);

/** True for a block of zeros. */
export function isZero(block: Buffer): boolean {
  for (let i = 0; i < BLOCK; i++) if (block[i] !== 0) return false;
  return true;
}

/** `v7`, `ustar` (PAX too), `star` or `gnu`. @throws `invalid_argument` when the checksum is wrong */
export function formatOf(block: Buffer): "v7" | "ustar" | "star" | "gnu" {
  const sum = number(block, FIELD.checksum);
  if (!checksums(block).includes(sum)) throw invalidHeader();
  const magic = block.toString("latin1", 257, 265);
  if (magic.startsWith("ustar\0")) {
    return block.toString("latin1", 508, 512) === "tar\0" ? "star" : "ustar";
  }
  return magic === "ustar  \0" ? "gnu" : "v7";
}

/** Dialects that a block is well-formed in: ustar's is ASCII with a NUL after every number. */
export function dialectsOf(block: Buffer, format: string): readonly TarFormat[] {
  if (format === "gnu") return ["gnu"];
  if (format !== "ustar") return [];
  const numbers = [FIELD.size, FIELD.mode, FIELD.uid, FIELD.gid, FIELD.mtime, FIELD.devmajor, FIELD.devminor];
  if (numbers.some(([at, length]) => block[at + length - 1] !== 0)) return [];
  return block.some((byte) => byte >= 0x80) ? [] : ["ustar", "pax"];
}

/** Header of a block, extended headers not yet applied. @throws `invalid_argument` */
export function parseBlock(block: Buffer, format: string): MutableHeader {
  const flag = String.fromCharCode(block[FIELD.typeflag[0]] as number);
  const type = TYPES.get(flag) ?? "other";
  const header: MutableHeader = {
    name: text(block, FIELD.name),
    type,
    mode: number(block, FIELD.mode),
    uid: number(block, FIELD.uid),
    gid: number(block, FIELD.gid),
    size: number(block, FIELD.size),
    mtimeNs: nanos(number(block, FIELD.mtime)),
    linkname: text(block, FIELD.linkname),
  };
  if (type === "other") header.typeflag = flag.charCodeAt(0);
  if (format === "v7") return header;
  header.uname = text(block, FIELD.uname);
  header.gname = text(block, FIELD.gname);
  header.devmajor = number(block, FIELD.devmajor);
  header.devminor = number(block, FIELD.devminor);
  let prefix = "";
  if (format === "ustar") prefix = text(block, FIELD.prefix);
  else if (format === "star") {
    prefix = text(block, [345, 131]);
    header.atimeNs = nanos(number(block, FIELD.starAtime));
    header.ctimeNs = nanos(number(block, FIELD.starCtime));
  } else {
    if (block[FIELD.gnuAtime[0]] !== 0) header.atimeNs = nanos(number(block, FIELD.gnuAtime));
    if (block[FIELD.gnuCtime[0]] !== 0) header.ctimeNs = nanos(number(block, FIELD.gnuCtime));
  }
  if (prefix !== "") header.name = `${prefix}/${header.name}`;
  return header;
}

function nanos(seconds: number): bigint {
  return BigInt(seconds) * 1_000_000_000n;
}

/** Text up to the first NUL. */
export function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return decodePath(end < 0 ? bytes : bytes.subarray(0, end));
}

function text(block: Buffer, [at, length]: Field): string {
  return cString(block.subarray(at, at + length));
}

/** Octal, or base 256 when the first bit is set. @throws `invalid_argument` for what isn't a safe integer */
export function number(block: Buffer, [at, length]: Field): number {
  const first = block[at] as number;
  if ((first & 0x80) !== 0) {
    const inverted = (first & 0x40) !== 0;
    let value = 0n;
    for (let i = 0; i < length; i++) {
      let byte = block[at + i] as number;
      if (inverted) byte ^= 0xff;
      if (i === 0) byte &= 0x7f;
      value = (value << 8n) | BigInt(byte);
    }
    return safe(inverted ? -value - 1n : value);
  }
  const digits = block.toString("latin1", at, at + length).replace(/^[ \0]+|[ \0]+$/g, "");
  if (digits === "") return 0;
  const end = digits.indexOf("\0");
  const octal = end < 0 ? digits : digits.slice(0, end);
  if (!/^[0-7]+$/.test(octal)) throw invalidHeader();
  return safe(BigInt(`0o${octal}`));
}

function safe(value: bigint): number {
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw invalidHeader("number too large");
  return result;
}

/** A decimal number of a PAX record. @throws `invalid_argument` */
export function paxInteger(digits: string): number {
  if (!/^-?\d{1,19}$/.test(digits)) throw invalidHeader(`number ${JSON.stringify(digits.slice(0, 40))}`);
  return safe(BigInt(digits));
}

/** Records of a PAX header: `<length> <key>=<value>\n`. */
export function parsePax(data: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  const sparse: string[] = [];
  let at = 0;
  while (at < data.length) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 ? "" : data.toString("latin1", at, space);
    if (!/^\d{1,10}$/.test(digits)) throw invalidHeader("PAX record");
    const end = at + Number(digits);
    if (Number(digits) < 5 || end > data.length || end <= space + 1 || data[end - 1] !== 0x0a) {
      throw invalidHeader("PAX record");
    }
    const equals = data.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end - 1) throw invalidHeader("PAX record");
    const key = decodePath(data.subarray(space + 1, equals));
    const value = data.subarray(equals + 1, end - 1);
    checkPaxRecord(key, value);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      const expected = sparse.length % 2 === 0 ? "GNU.sparse.offset" : "GNU.sparse.numbytes";
      if (key !== expected || value.includes(0x2c)) throw invalidHeader("sparse map");
      sparse.push(value.toString("latin1"));
    } else records.set(key, value);
    at = end;
  }
  if (sparse.length > 0) records.set("GNU.sparse.map", Buffer.from(sparse.join(",")));
  return records;
}

function checkPaxRecord(key: string, value: Buffer): void {
  const isText = key === "path" || key === "linkpath" || key === "uname" || key === "gname";
  if (key === "" || (isText ? value.includes(0) : key.includes("\0"))) throw invalidHeader("PAX record");
}

const LIBARCHIVE_XATTR = "LIBARCHIVE.xattr.";

/** A header with what its PAX records say. @throws `invalid_argument` */
export function mergePax(
  raw: MutableHeader,
  records: ReadonlyMap<string, Buffer>,
  rawLibarchive: boolean,
): MutableHeader {
  const header: MutableHeader = { ...raw };
  const xattrs = new Map<string, Uint8Array>();
  const pax = new Map<string, string>();
  for (const [key, bytes] of records) {
    if (key.startsWith(SCHILY_XATTR)) {
      xattrs.set(key.slice(SCHILY_XATTR.length), bytes);
      continue;
    }
    const value = decodePath(bytes);
    pax.set(key, value);
    if (value === "") continue;
    if (key === "path") header.name = value;
    else if (key === "linkpath") header.linkname = value;
    else if (key === "uname" || key === "gname") header[key] = value;
    else if (key === "uid" || key === "gid" || key === "size") header[key] = paxInteger(value);
    else if (key === "mtime") header.mtimeNs = parsePaxTime(value);
    else if (key === "atime") header.atimeNs = parsePaxTime(value);
    else if (key === "ctime") header.ctimeNs = parsePaxTime(value);
    else if (key.startsWith(LIBARCHIVE_XATTR) && !rawLibarchive) {
      const name = decodeURIComponentSafe(key.slice(LIBARCHIVE_XATTR.length));
      if (!records.has(SCHILY_XATTR + name)) xattrs.set(name, Buffer.from(value, "base64"));
    }
  }
  if (xattrs.size > 0) header.xattrs = xattrs;
  if (pax.size > 0) header.pax = pax;
  return header;
}

function decodeURIComponentSafe(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    // Not percent-encoded after all.
    return name;
  }
}

/** Which of GNU's PAX sparse formats the records are of. */
export function sparseVersion(records: ReadonlyMap<string, Buffer>): "0.x" | "1.0" | undefined {
  const major = records.get("GNU.sparse.major")?.toString("latin1") ?? "";
  const minor = records.get("GNU.sparse.minor")?.toString("latin1") ?? "";
  if (major === "0" && (minor === "0" || minor === "1")) return "0.x";
  if (major === "1" && minor === "0") return "1.0";
  if (major !== "" || minor !== "") return undefined;
  return (records.get("GNU.sparse.map")?.length ?? 0) > 0 ? "0.x" : undefined;
}
