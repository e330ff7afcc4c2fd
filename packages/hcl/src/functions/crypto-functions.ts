import { decodeBase64 } from "../crypto/base64.ts";
import { bcryptHash } from "../crypto/bcrypt.ts";
import { hex, md5, sha1, sha256, sha512 } from "../crypto/hashes.ts";
import { RsaError, rsaDecrypt } from "../crypto/rsa.ts";
import { quote } from "../cty/text.ts";
import { numberType, stringType } from "../cty/type.ts";
import { stringValue, type Value } from "../cty/value.ts";
import { FunctionError, type HclFunction } from "../function.ts";
import { asInteger, type FunctionHost, type FunctionTable, fn, text, variadic } from "./support.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const NAMESPACES = new Map([
  ["dns", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
  ["url", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"],
  ["oid", "6ba7b812-9dad-11d1-80b4-00c04fd430c8"],
  ["x500", "6ba7b814-9dad-11d1-80b4-00c04fd430c8"],
]);

function hash(name: string, digest: (message: Uint8Array) => Uint8Array): HclFunction {
  return fn(
    `Computes the ${name} hash of a given string and encodes it with hexadecimal digits.`,
    [text("str")],
    stringType,
    ([given]) => stringValue(hex(digest(encoder.encode(given!.string)))),
  );
}

function bcrypt(args: readonly Value[], host: FunctionHost): Value {
  const cost = args[1] === undefined ? 10 : asInteger(args[1]);
  if (args.length > 2) throw new FunctionError("bcrypt() takes no more than two arguments");
  try {
    return stringValue(bcryptHash(encoder.encode(args[0]!.string), cost, host.randomBytes(16)));
  } catch (error) {
    if (error instanceof RangeError)
      throw new FunctionError(`error occured generating password ${error.message}`);
    throw error;
  }
}

function decrypt(args: readonly Value[]): Value {
  const given = args[0]!.string;
  const bytes = decodeBase64(given);
  if (bytes === undefined) {
    throw new FunctionError(`failed to decode input ${quote(given)}: cipher text must be base64-encoded`);
  }
  try {
    return stringValue(decoder.decode(rsaDecrypt(bytes, args[1]!.string)));
  } catch (error) {
    throw error instanceof RsaError ? new FunctionError(error.message) : error;
  }
}

function formatUuid(bytes: Uint8Array, version: number): string {
  const copy = bytes.slice(0, 16);
  copy[6] = (copy[6]! & 0x0f) | (version << 4);
  copy[8] = (copy[8]! & 0x3f) | 0x80;
  const digits = hex(copy);
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    digits.slice(12, 16),
    digits.slice(16, 20),
    digits.slice(20),
  ].join("-");
}

/** The bytes of a UUID in any of its usual spellings; throws Go's complaint. */
function parseUuid(given: string): Uint8Array {
  const plain = given.replace(/^urn:uuid:/i, "").replace(/^\{(.*)\}$/, "$1");
  if (![32, 36, 38, 45].includes(given.length))
    throw new FunctionError(`invalid UUID length: ${given.length}`);
  if (!/^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i.test(plain)) {
    throw new FunctionError("invalid UUID format");
  }
  const digits = plain.replace(/-/g, "");
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
}

function uuid5(namespace: string, name: string): string {
  let bytes: Uint8Array;
  try {
    bytes = parseUuid(NAMESPACES.get(namespace) ?? namespace);
  } catch (error) {
    if (!(error instanceof FunctionError)) throw error;
    throw new FunctionError(`uuidv5() doesn't support namespace ${namespace} (${error.message})`);
  }
  const message = encoder.encode(name);
  const input = new Uint8Array(16 + message.length);
  input.set(bytes);
  input.set(message, 16);
  return formatUuid(sha1(input), 5);
}

/** Hashes, decryption and UUIDs. */
export function cryptoFunctions(host: FunctionHost): FunctionTable {
  return {
    md5: hash("MD5", md5),
    sha1: hash("SHA1", sha1),
    sha256: hash("SHA256", sha256),
    sha512: hash("SHA512", sha512),
    bcrypt: variadic(
      fn(
        "Computes a hash of the given string using the Blowfish cipher.",
        [text("str")],
        stringType,
        (args) => bcrypt(args, host),
      ),
      { name: "cost", type: numberType },
    ),
    rsadecrypt: fn(
      "Decrypts an RSA-encrypted ciphertext.",
      [text("ciphertext"), text("privatekey")],
      stringType,
      decrypt,
    ),
    uuidv4: fn(
      "Generates and returns a Type-4 UUID in the standard hexadecimal string format.",
      [],
      stringType,
      () => stringValue(formatUuid(host.randomBytes(16), 4)),
    ),
    uuidv5: fn(
      "Generates and returns a Type-5 UUID in the standard hexadecimal string format.",
      [text("namespace"), text("name")],
      stringType,
      ([namespace, name]) => stringValue(uuid5(namespace!.string, name!.string)),
    ),
  };
}
