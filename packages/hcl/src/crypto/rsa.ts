import { decodeBase64 } from "./base64.ts";

/** A key that can't be read, or a text that it doesn't decrypt. */
export class RsaError extends Error {}

/** Decrypts PKCS #1 v1.5 with a PEM private key (`RSA PRIVATE KEY`). */
export function rsaDecrypt(ciphertext: Uint8Array, pem: string): Uint8Array {
  const match = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n([\s\S]*?)-----END \1-----/.exec(pem);
  if (match === null) throw new RsaError("failed to parse key: no key found");
  const [headers, body] = splitHeaders(match[2] ?? "");
  if (/^Proc-Type:\s*4,ENCRYPTED/m.test(headers)) {
    throw new RsaError(
      "failed to parse key: password protected keys are not supported. Please decrypt the key prior to use",
    );
  }
  const der = decodeBase64(body.replace(/\s/g, ""));
  if (der === undefined) throw new RsaError("failed to parse key: no key found");
  const numbers = readIntegers(der);
  const [modulus, exponent] = [numbers[1], numbers[3]];
  if (modulus === undefined || exponent === undefined || modulus < 2n)
    throw new RsaError("x509: failed to parse private key");
  const size = Math.ceil(modulus.toString(16).length / 2);
  if (ciphertext.length > size) throw new RsaError("crypto/rsa: decryption error");
  return unpad(toBytes(power(fromBytes(ciphertext), exponent, modulus), size));
}

function splitHeaders(text: string): readonly [headers: string, body: string] {
  const end = text.search(/\r?\n\r?\n/);
  return end >= 0 && text.slice(0, end).includes(":") ? [text.slice(0, end), text.slice(end)] : ["", text];
}

/** The integers of a DER sequence. */
function readIntegers(der: Uint8Array): bigint[] {
  const out: bigint[] = [];
  const length = (at: number): readonly [value: number, next: number] => {
    const first = der[at] ?? 0;
    if (first < 128) return [first, at + 1];
    let value = 0;
    for (let i = 1; i <= (first & 127) && i <= 4; i++) value = value * 256 + (der[at + i] ?? 0);
    return [value, at + 1 + (first & 127)];
  };
  if (der[0] !== 0x30) throw new RsaError("x509: failed to parse private key");
  let [, at] = length(1);
  while (at < der.length && der[at] === 0x02) {
    const [size, next] = length(at + 1);
    out.push(fromBytes(der.subarray(next, next + size)));
    at = next + size;
  }
  return out;
}

function fromBytes(bytes: Uint8Array): bigint {
  let out = 0n;
  for (const byte of bytes) out = (out << 8n) | BigInt(byte);
  return out;
}

function toBytes(value: bigint, size: number): Uint8Array {
  const out = new Uint8Array(size);
  let rest = value;
  for (let i = size - 1; i >= 0; i--) {
    out[i] = Number(rest & 255n);
    rest >>= 8n;
  }
  return out;
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let factor = base % modulus;
  for (let left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * factor) % modulus;
    factor = (factor * factor) % modulus;
  }
  return result;
}

function unpad(block: Uint8Array): Uint8Array {
  const end = block.indexOf(0, 2);
  if (block[0] !== 0 || block[1] !== 2 || end < 10) throw new RsaError("crypto/rsa: decryption error");
  return block.slice(end + 1);
}
