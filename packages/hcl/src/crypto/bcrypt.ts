const ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const ROUNDS = 16;
const BOX_WORDS = 1024;
const MIN_COST = 4;
const MAX_COST = 31;
/** Costs above this take minutes here; they are refused. */
const MAX_PRACTICAL_COST = 16;
const MAX_PASSWORD_BYTES = 72;

let piWords: Int32Array | undefined;

/** The first words of pi's fraction, from which Blowfish begins. */
function fractionOfPi(): Int32Array {
  if (piWords !== undefined) return piWords;
  const count = ROUNDS + 2 + BOX_WORDS;
  const bits = BigInt(count * 32 + 64);
  const one = 1n << bits;
  const arctanInverse = (n: bigint): bigint => {
    let power = one / n;
    let sum = power;
    for (let i = 3n, sign = -1n; power > 0n; i += 2n, sign = -sign) {
      power /= n * n;
      sum += sign * (power / i);
    }
    return sum;
  };
  const pi = 16n * arctanInverse(5n) - 4n * arctanInverse(239n);
  const digits = (pi - 3n * one).toString(16).padStart(Number(bits / 4n), "0");
  piWords = Int32Array.from(
    { length: count },
    (_, i) => Number.parseInt(digits.slice(i * 8, i * 8 + 8), 16) | 0,
  );
  return piWords;
}

/** Blowfish with bcrypt's expensive key schedule. */
class Blowfish {
  readonly #keys: Int32Array;
  readonly #boxes: Int32Array;
  left = 0;
  right = 0;

  constructor() {
    const pi = fractionOfPi();
    this.#keys = pi.slice(0, ROUNDS + 2);
    this.#boxes = pi.slice(ROUNDS + 2);
  }

  encrypt(): void {
    const keys = this.#keys;
    const boxes = this.#boxes;
    let { left, right } = this;
    left ^= keys[0]!;
    for (let i = 1; i <= ROUNDS; i += 2) {
      right ^= this.#mix(boxes, left) ^ keys[i]!;
      left ^= this.#mix(boxes, right) ^ keys[i + 1]!;
    }
    this.left = right ^ keys[ROUNDS + 1]!;
    this.right = left;
  }

  #mix(boxes: Int32Array, x: number): number {
    const sum = (boxes[x >>> 24]! + boxes[256 + ((x >>> 16) & 255)]!) | 0;
    return ((sum ^ boxes[512 + ((x >>> 8) & 255)]!) + boxes[768 + (x & 255)]!) | 0;
  }

  expand(key: Uint8Array, salt: Uint8Array): void {
    let keyAt = 0;
    let saltAt = 0;
    const word = (bytes: Uint8Array, at: number): number => {
      let out = 0;
      for (let i = 0; i < 4; i++) out = (out << 8) | bytes[(at + i) % bytes.length]!;
      return out;
    };
    for (let i = 0; i < this.#keys.length; i++) {
      this.#keys[i]! ^= word(key, keyAt);
      keyAt = (keyAt + 4) % key.length;
    }
    this.left = 0;
    this.right = 0;
    for (const table of [this.#keys, this.#boxes]) {
      for (let i = 0; i < table.length; i += 2) {
        this.left ^= word(salt, saltAt);
        this.right ^= word(salt, saltAt + 4);
        saltAt = (saltAt + 8) % salt.length;
        this.encrypt();
        table[i] = this.left;
        table[i + 1] = this.right;
      }
    }
  }
}

const NO_SALT = new Uint8Array(4);

function encode(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const group = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    const count = Math.min(4, Math.ceil(((bytes.length - i) * 8) / 6));
    for (let n = 0; n < count; n++) out += ALPHABET.charAt((group >>> (18 - 6 * n)) & 63);
  }
  return out;
}

/** A bcrypt hash (`$2a$`) of a password with 16 bytes of salt. */
export function bcryptHash(password: Uint8Array, cost: number, salt: Uint8Array): string {
  if (password.length > MAX_PASSWORD_BYTES) throw new RangeError("bcrypt: password length exceeds 72 bytes");
  if (cost > MAX_COST)
    throw new RangeError(
      `crypto/bcrypt: cost ${cost} is outside allowed inclusive range ${MIN_COST}..${MAX_COST}`,
    );
  const actual = cost < MIN_COST ? 10 : cost;
  if (actual > MAX_PRACTICAL_COST) throw new RangeError(`a cost above ${MAX_PRACTICAL_COST} isn't supported`);
  const key = new Uint8Array(password.length + 1);
  key.set(password);
  const cipher = new Blowfish();
  cipher.expand(key, salt);
  for (let i = 0; i < 2 ** actual; i++) {
    cipher.expand(key, NO_SALT);
    cipher.expand(salt, NO_SALT);
  }
  const text = new DataView(new TextEncoder().encode("OrpheanBeholderScryDoubt").buffer);
  const out = new DataView(new ArrayBuffer(24));
  for (let at = 0; at < 24; at += 8) {
    cipher.left = text.getInt32(at);
    cipher.right = text.getInt32(at + 4);
    for (let i = 0; i < 64; i++) cipher.encrypt();
    out.setInt32(at, cipher.left);
    out.setInt32(at + 4, cipher.right);
  }
  return `$2a$${String(actual).padStart(2, "0")}$${encode(salt)}${encode(new Uint8Array(out.buffer).subarray(0, 23))}`;
}
