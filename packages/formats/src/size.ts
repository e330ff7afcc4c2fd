import { BuildError } from "@kiln/base";
import { formatG } from "./sprintf.ts";

const UNITS = "kmgtp";
const DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/** Bytes of a size whose units are powers of 1024 (`512MB`, `1.5 GiB`, `10k`); go-units' `RAMInBytes`. */
export function parseRamBytes(text: string): number {
  return parseSize(text, 1024);
}

/** Bytes of a size whose units are powers of 1000; go-units' `FromHumanSize`. */
export function parseDecimalBytes(text: string): number {
  return parseSize(text, 1000);
}

function parseSize(text: string, base: number): number {
  let split = text.length - 1;
  while (split >= 0 && !/[0-9. ]/.test(text[split]!)) split--;
  if (split < 0) throw invalid(`invalid size: '${text}'`);
  const num = text.slice(0, text[split] === " " ? split : split + 1);
  const size = parseGoFloat(num);
  if (size < 0) throw invalid(`invalid size: '${text}'`);
  const suffix = text.slice(split + 1);
  if (suffix === "") return Math.trunc(size);
  const lower = suffix.toLowerCase();
  if (suffix.length > 3) throw invalid(`invalid suffix: '${suffix}'`);
  if (lower === "b") return Math.trunc(size);
  const power = UNITS.indexOf(lower[0]!);
  const rest = lower.slice(1);
  if (power < 0 || (rest !== "" && rest !== "b" && rest !== "ib"))
    throw invalid(`invalid suffix: '${lower}'`);
  return Math.trunc(size * base ** (power + 1));
}

function parseGoFloat(text: string): number {
  const value = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(value)) {
    throw invalid(`strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
  }
  return value;
}

/** `1.234MB`: powers of 1000, four digits unless told; go-units' `HumanSize`. */
export function humanSize(bytes: number | bigint, precision = 4): string {
  return withUnit(Number(bytes), 1000, DECIMAL, precision);
}

/** `1.234MiB`: powers of 1024, four digits; go-units' `BytesSize`. */
export function bytesSize(bytes: number | bigint): string {
  return withUnit(Number(bytes), 1024, BINARY, 4);
}

function withUnit(bytes: number, base: number, units: readonly string[], precision: number): string {
  let size = bytes;
  let unit = 0;
  while (size >= base && unit < units.length - 1) {
    size /= base;
    unit++;
  }
  return formatG(size, precision) + units[unit]!;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
