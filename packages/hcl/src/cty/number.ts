/** Precision in bits of numbers read from text: HCL's and cty's. */
export const LITERAL_PRECISION = 512;
const INT_PRECISION = 64;
const FLOAT64_PRECISION = 53;
/** Most digits that a number may have when written out; beyond that evaluation fails. */
const MAX_TEXT_DIGITS = 1_000_000;
const MAX_EXPONENT = 2147483647;

/** Thrown by arithmetic that has no result, such as 0 divided by 0. */
export class NotANumberError extends Error {}

/**
 * A binary floating point number with its own precision, rounding to nearest even: the results and texts of
 * Go's `big.Float`, which cty numbers are. Immutable.
 */
export class Num {
  readonly kind: "finite" | "inf";
  readonly negative: boolean;
  /** Zero, or without trailing zero bits. */
  readonly mant: bigint;
  readonly exp: number;
  readonly precision: number;

  private constructor(
    kind: "finite" | "inf",
    negative: boolean,
    parts: { mant: bigint; exp: number; precision: number },
  ) {
    this.kind = kind;
    this.negative = negative;
    this.mant = parts.mant;
    this.exp = parts.exp;
    this.precision = parts.precision;
  }

  /** The number `±mant·2^exp` rounded to `precision` bits. */
  static make(negative: boolean, mant: bigint, exp: number, precision: number): Num {
    return makeRounded(negative, { mant, exp, sticky: false }, precision);
  }

  static infinity(negative: boolean, precision = 0): Num {
    return new Num("inf", negative, { mant: 0n, exp: 0, precision });
  }

  static raw(negative: boolean, mant: bigint, exp: number, precision: number): Num {
    return new Num("finite", negative, { mant, exp, precision });
  }

  /** As `SetInt64`: 64 bits. */
  static fromInt(value: number | bigint): Num {
    const big = BigInt(value);
    const mant = big < 0n ? -big : big;
    return Num.make(big < 0n, mant, 0, Math.max(INT_PRECISION, bitLength(mant)));
  }

  /** As `SetFloat64`: 53 bits. NaN isn't a number. */
  static fromFloat(value: number): Num {
    if (Number.isNaN(value)) throw new NotANumberError("Float.SetFloat64(NaN)");
    if (!Number.isFinite(value)) return Num.infinity(value < 0, FLOAT64_PRECISION);
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    const bits = view.getBigUint64(0);
    const biased = Number((bits >> 52n) & 0x7ffn);
    const fraction = bits & 0xfffffffffffffn;
    const mant = biased === 0 ? fraction : fraction | 0x10000000000000n;
    return Num.make(bits >> 63n === 1n, mant, (biased === 0 ? 1 : biased) - 1075, FLOAT64_PRECISION);
  }

  /** Parses as `big.ParseFloat(text, 10, 512)`; `undefined` when it isn't a number. */
  static parse(text: string): Num | undefined {
    return parseNumber(text);
  }

  get isInteger(): boolean {
    return this.kind === "finite" && this.exp >= 0;
  }

  /** -1, 0 or 1. */
  get sign(): number {
    if (this.kind === "finite" && this.mant === 0n) return 0;
    return this.negative ? -1 : 1;
  }

  withPrecision(precision: number): Num {
    return this.kind === "inf"
      ? Num.infinity(this.negative, precision)
      : Num.make(this.negative, this.mant, this.exp, precision);
  }

  negate(): Num {
    if (this.kind === "inf") return Num.infinity(!this.negative, this.precision);
    return Num.raw(!this.negative, this.mant, this.exp, this.precision);
  }

  absolute(): Num {
    return this.negative ? this.negate() : this;
  }

  add(other: Num, precision = Math.max(this.precision, other.precision)): Num {
    if (this.kind === "inf" || other.kind === "inf") {
      if (this.kind === "inf" && other.kind === "inf" && this.negative !== other.negative) {
        throw new NotANumberError("addition of infinities with opposite signs");
      }
      return Num.infinity(this.kind === "inf" ? this.negative : other.negative, precision);
    }
    if (this.mant === 0n)
      return other.mant === 0n ? addZeros(this, other, precision) : other.withPrecision(precision);
    if (other.mant === 0n) return this.withPrecision(precision);
    if (Math.abs(this.exp - other.exp) > 100_000_000) throw new RangeError("number out of range");
    const exp = Math.min(this.exp, other.exp);
    const a = signed(this) << BigInt(this.exp - exp);
    const b = signed(other) << BigInt(other.exp - exp);
    const sum = a + b;
    return Num.make(sum < 0n, sum < 0n ? -sum : sum, exp, precision);
  }

  subtract(other: Num, precision?: number): Num {
    return this.add(other.negate(), precision);
  }

  multiply(other: Num): Num {
    const wanted = Math.max(this.precision, other.precision);
    const product = this.times(other, LITERAL_PRECISION);
    const least = product.kind === "finite" ? bitLength(product.mant) : 0;
    return product.withPrecision(Math.max(wanted, least));
  }

  /** Multiplies rounding to `precision` bits. */
  times(other: Num, precision: number): Num {
    const negative = this.negative !== other.negative;
    if (this.kind === "inf" || other.kind === "inf") {
      if (this.sign === 0 || other.sign === 0)
        throw new NotANumberError("multiplication of zero with infinity");
      return Num.infinity(negative, precision);
    }
    return Num.make(negative, this.mant * other.mant, this.exp + other.exp, precision);
  }

  divide(other: Num, precision = Math.max(this.precision, other.precision)): Num {
    const negative = this.negative !== other.negative;
    if ((this.sign === 0 && other.sign === 0) || (this.kind === "inf" && other.kind === "inf")) {
      throw new NotANumberError("division of zero by zero or infinity by infinity");
    }
    if (this.kind === "inf" || other.sign === 0) return Num.infinity(negative, precision);
    if (this.sign === 0 || other.kind === "inf") return Num.make(negative, 0n, 0, precision);
    const shift = Math.max(0, precision + 2 + bitLength(other.mant) - bitLength(this.mant));
    const numerator = this.mant << BigInt(shift);
    const quotient = numerator / other.mant;
    const sticky = quotient * other.mant !== numerator;
    return makeRounded(negative, { mant: quotient, exp: this.exp - other.exp - shift, sticky }, precision);
  }

  /** cty's modulo: the remainder of truncated division, with this number's sign and precision. */
  modulo(other: Num): Num {
    if (this.kind === "inf" || other.kind === "inf") return this.multiply(other);
    if (other.sign === 0) return this;
    const whole = this.divide(other).toBigInt();
    const work = Num.make(whole < 0n, whole < 0n ? -whole : whole, 0, this.precision);
    return this.subtract(other.times(work, this.precision), this.precision);
  }

  compare(other: Num): number {
    const a = this.sign;
    const b = other.sign;
    if (a !== b) return a < b ? -1 : 1;
    if (a === 0) return 0;
    if (this.kind === "inf" || other.kind === "inf") {
      if (this.kind === other.kind) return 0;
      return (this.kind === "inf") === a > 0 ? 1 : -1;
    }
    const mine = bitLength(this.mant) + this.exp;
    const theirs = bitLength(other.mant) + other.exp;
    if (mine !== theirs) return mine < theirs ? -a : a;
    const exp = Math.min(this.exp, other.exp);
    const x = this.mant << BigInt(this.exp - exp);
    const y = other.mant << BigInt(other.exp - exp);
    if (x === y) return 0;
    return x < y ? -a : a;
  }

  /** cty's equality: the same text. */
  equals(other: Num): boolean {
    if (this.sign !== other.sign) return false;
    if (
      this.kind === "finite" &&
      other.kind === "finite" &&
      this.exp === other.exp &&
      this.mant === other.mant
    )
      return true;
    if (this.precision === other.precision) return this.compare(other) === 0;
    return this.toString() === other.toString();
  }

  /** The integer part, towards zero. Infinity has none. */
  toBigInt(): bigint {
    if (this.kind === "inf") throw new NotANumberError("infinity");
    if (this.exp > MAX_TEXT_DIGITS * 4) throw new RangeError("number out of range");
    const whole = this.exp >= 0 ? this.mant << BigInt(this.exp) : this.mant >> BigInt(-this.exp);
    return this.negative ? -whole : whole;
  }

  /** The number as a safe JavaScript integer, or `undefined`. */
  toSafeInteger(): number | undefined {
    if (!this.isInteger || bitLength(this.mant) + this.exp > 53) return undefined;
    return Number(this.toBigInt());
  }

  /** The nearest 64-bit float. */
  toFloat(): number {
    if (this.kind === "inf") return this.negative ? -Infinity : Infinity;
    if (this.mant === 0n) return this.negative ? -0 : 0;
    const top = bitLength(this.mant) + this.exp;
    const precision = top > -1022 ? FLOAT64_PRECISION : FLOAT64_PRECISION + top + 1021;
    if (precision < 0) return this.negative ? -0 : 0;
    const rounded = precision === 0 ? this : Num.make(false, this.mant, this.exp, precision);
    const magnitude = scale(Number(rounded.mant), rounded.exp);
    return this.negative ? -magnitude : magnitude;
  }

  /** Decimal text without exponent, as short as identifies the number at its precision: cty's conversion to string. */
  toString(): string {
    return this.text("f", -1);
  }

  /** As `big.Float.Text`: format `e`, `E`, `f`, `g` or `G`; precision -1 is the shortest. */
  text(format: "e" | "E" | "f" | "g" | "G", precision: number): string {
    return formatNumber(this, format, precision);
  }
}

function addZeros(a: Num, b: Num, precision: number): Num {
  return Num.raw(a.negative && b.negative, 0n, 0, precision);
}

function signed(n: Num): bigint {
  return n.negative ? -n.mant : n.mant;
}

function scale(mant: number, exp: number): number {
  let value = mant;
  let left = exp;
  while (left > 1000) {
    value *= 2 ** 1000;
    left -= 1000;
    if (value === Infinity) return value;
  }
  while (left < -1000) {
    value *= 2 ** -1000;
    left += 1000;
    if (value === 0) return 0;
  }
  return value * 2 ** left;
}

/** Number of bits of a non-negative integer. */
export function bitLength(value: bigint): number {
  if (value < 0x20000000000000n) {
    const n = Number(value);
    if (n < 0x100000000) return 32 - Math.clz32(n);
    return 64 - Math.clz32(Math.floor(n / 0x100000000));
  }
  const hex = value.toString(16);
  return (hex.length - 1) * 4 + (32 - Math.clz32(Number.parseInt(hex.charAt(0), 16)));
}

function trailingZeros(value: bigint): number {
  let zeros = 0;
  let rest = value;
  while ((rest & 0xffffffffn) === 0n) {
    rest >>= 32n;
    zeros += 32;
  }
  const low = Number(rest & 0xffffffffn);
  return zeros + 31 - Math.clz32(low & -low);
}

function makeRounded(
  negative: boolean,
  value: { readonly mant: bigint; readonly exp: number; readonly sticky: boolean },
  precision: number,
): Num {
  let { mant, exp } = value;
  if (mant === 0n) return Num.raw(negative, 0n, 0, precision);
  const extra = bitLength(mant) - precision;
  if (extra > 0) {
    const shift = BigInt(extra);
    const low = mant & ((1n << shift) - 1n);
    const half = 1n << (shift - 1n);
    mant >>= shift;
    exp += extra;
    if (low > half || (low === half && (value.sticky || (mant & 1n) === 1n))) mant += 1n;
  }
  const zeros = trailingZeros(mant);
  if (zeros > 0) {
    mant >>= BigInt(zeros);
    exp += zeros;
  }
  if (exp + bitLength(mant) > MAX_EXPONENT) return Num.infinity(negative, precision);
  if (exp + bitLength(mant) < -MAX_EXPONENT) return Num.raw(negative, 0n, 0, precision);
  return Num.raw(negative, mant, exp, precision);
}

const NUMBER = /^([+-]?)(?:(\d*)(?:\.(\d*))?(?:([eEpP])([+-]?\d+))?|([iI]nf))$/;

function parseNumber(text: string): Num | undefined {
  const match = NUMBER.exec(text);
  if (match === null) return undefined;
  const negative = match[1] === "-";
  if (match[6] !== undefined) return Num.infinity(negative, LITERAL_PRECISION);
  const whole = match[2] ?? "";
  const fraction = match[3] ?? "";
  if (whole === "" && fraction === "") return undefined;
  if (whole.length + fraction.length > MAX_TEXT_DIGITS) return undefined;
  const mant = BigInt(whole + fraction);
  const exponent = Number(match[5] ?? "0");
  const binary = match[4] === "p" || match[4] === "P";
  const exp10 = (binary ? 0 : exponent) - fraction.length;
  const exp2 = (binary ? exponent : 0) + exp10;
  if (mant === 0n) return Num.raw(negative, 0n, 0, LITERAL_PRECISION);
  if (Math.abs(exponent) > MAX_EXPONENT)
    return exponent > 0
      ? Num.infinity(negative, LITERAL_PRECISION)
      : Num.raw(negative, 0n, 0, LITERAL_PRECISION);
  if (exp10 === 0) return Num.make(negative, mant, exp2, LITERAL_PRECISION);
  const power = powerOfFive(Math.abs(exp10), LITERAL_PRECISION + 64);
  const exact = Num.raw(negative, mant, exp2, LITERAL_PRECISION);
  return exp10 < 0 ? exact.divide(power, LITERAL_PRECISION) : exact.times(power, LITERAL_PRECISION);
}

/** 5^n as Go computes it: square and multiply, rounded at each step. */
function powerOfFive(n: number, precision: number): Num {
  if (n <= 27) return Num.make(false, 5n ** BigInt(n), 0, precision);
  let result = Num.make(false, 5n ** 27n, 0, precision);
  let left = n - 27;
  let factor = Num.make(false, 5n, 0, precision + 64);
  while (left > 0) {
    if (left % 2 === 1) result = result.times(factor, precision);
    factor = factor.times(factor, precision + 64);
    left = Math.floor(left / 2);
  }
  return result;
}

/** Decimal digits `0.mant × 10^exp`. */
interface Decimal {
  mant: string;
  exp: number;
}

function decimalOf(mant: bigint, exp: number): Decimal {
  if (mant === 0n) return { mant: "", exp: 0 };
  if (Math.abs(exp) > MAX_TEXT_DIGITS) throw new RangeError("number has too many digits to be written out");
  const digits = exp >= 0 ? (mant << BigInt(exp)).toString() : (mant * 5n ** BigInt(-exp)).toString();
  return { mant: digits.replace(/0+$/, ""), exp: digits.length + Math.min(exp, 0) };
}

function at(d: Decimal, index: number): string {
  return index >= 0 && index < d.mant.length ? d.mant.charAt(index) : "0";
}

function roundDown(d: Decimal, n: number): void {
  if (n < 0 || n >= d.mant.length) return;
  d.mant = d.mant.slice(0, n).replace(/0+$/, "");
  if (d.mant === "") d.exp = 0;
}

function roundUp(d: Decimal, n: number): void {
  if (n < 0 || n >= d.mant.length) return;
  let length = n;
  while (length > 0 && d.mant.charAt(length - 1) === "9") length--;
  if (length === 0) {
    d.mant = "1";
    d.exp++;
    return;
  }
  d.mant = d.mant.slice(0, length - 1) + String(Number(d.mant.charAt(length - 1)) + 1);
}

function roundHalfEven(d: Decimal, n: number): void {
  if (n < 0 || n >= d.mant.length) return;
  const digit = d.mant.charAt(n);
  const exactHalf = digit === "5" && n + 1 === d.mant.length;
  const up = exactHalf ? n > 0 && Number(d.mant.charAt(n - 1)) % 2 === 1 : digit >= "5";
  if (up) roundUp(d, n);
  else roundDown(d, n);
}

function roundShortest(d: Decimal, x: Num): void {
  if (d.mant === "") return;
  const shift = bitLength(x.mant) - (x.precision + 1);
  const mant = shift < 0 ? x.mant << BigInt(-shift) : x.mant >> BigInt(shift);
  const exp = x.exp + shift;
  const lower = decimalOf(mant - 1n, exp);
  const upper = decimalOf(mant + 1n, exp);
  const inclusive = (mant & 2n) === 0n;
  for (let i = 0; i < d.mant.length; i++) {
    const m = d.mant.charAt(i);
    const l = at(lower, i);
    const u = at(upper, i);
    const down = l !== m || (inclusive && i + 1 === lower.mant.length);
    const up = m !== u && (inclusive || Number(m) + 1 < Number(u) || i + 1 < upper.mant.length);
    if (!down && !up) continue;
    if (down && up) roundHalfEven(d, i + 1);
    else if (down) roundDown(d, i + 1);
    else roundUp(d, i + 1);
    return;
  }
}

function formatNumber(x: Num, format: "e" | "E" | "f" | "g" | "G", precision: number): string {
  const sign = x.negative ? "-" : "";
  if (x.kind === "inf") return x.negative ? "-Inf" : "+Inf";
  if (format === "f" && precision < 0 && x.exp >= 0 && bitLength(x.mant) + x.exp <= x.precision) {
    return sign + (x.mant << BigInt(x.exp)).toString();
  }
  const d = decimalOf(x.mant, x.exp);
  let digits = precision;
  const shortest = precision < 0;
  if (shortest) {
    roundShortest(d, x);
    if (format === "e" || format === "E") digits = d.mant.length - 1;
    else digits = format === "f" ? Math.max(d.mant.length - d.exp, 0) : d.mant.length;
  } else if (format === "f") roundHalfEven(d, d.exp + digits);
  else if (format === "e" || format === "E") roundHalfEven(d, 1 + digits);
  else {
    if (digits === 0) digits = 1;
    roundHalfEven(d, digits);
  }
  if (format === "f") return sign + fixed(d, digits);
  if (format === "e" || format === "E") return sign + scientific(d, digits, format);
  let limit = digits;
  if (limit > d.mant.length && d.mant.length >= d.exp) limit = d.mant.length;
  if (shortest) limit = 6;
  const exponent = d.exp - 1;
  if (exponent < -4 || exponent >= limit) {
    return sign + scientific(d, Math.min(digits, d.mant.length) - 1, format === "g" ? "e" : "E");
  }
  if (digits > d.exp) digits = d.mant.length;
  return sign + fixed(d, Math.max(digits - d.exp, 0));
}

function fixed(d: Decimal, precision: number): string {
  const whole = d.exp > 0 ? d.mant.slice(0, d.exp).padEnd(d.exp, "0") : "0";
  if (precision <= 0) return whole;
  let fraction = "";
  for (let i = 0; i < precision; i++) fraction += at(d, d.exp + i);
  return `${whole}.${fraction}`;
}

function scientific(d: Decimal, precision: number, letter: "e" | "E"): string {
  let text = d.mant === "" ? "0" : d.mant.charAt(0);
  if (precision > 0) text += `.${d.mant.slice(1, 1 + precision).padEnd(precision, "0")}`;
  const exponent = d.mant === "" ? 0 : d.exp - 1;
  return `${text}${letter}${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}
