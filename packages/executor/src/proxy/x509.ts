import { createHash, createPublicKey, generateKeyPair, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIP, isIPv4 } from "node:net";
import { promisify } from "node:util";

// Just enough of X.509 (RFC 5280) to issue server certificates, in DER.

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OID = 0x06;
const UTF8 = 0x0c;
const BOOLEAN = 0x01;
const NULL = 0x05;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const { length } = body;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), body]);
  const size: number[] = [];
  for (let rest = length; rest > 0; rest >>>= 8) size.unshift(rest & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | size.length, ...size]), body]);
}

function integer(value: Uint8Array): Buffer {
  return der(INTEGER, (value[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), value]) : value);
}

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const group = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) group.unshift((left & 0x7f) | 0x80);
    bytes.push(...group);
  }
  return der(OID, Buffer.from(bytes));
}

function time(date: Date): Buffer {
  const digits = date.toISOString().replace(/[-:T]/g, "").slice(0, 14);
  return date.getUTCFullYear() < 2050
    ? der(UTC_TIME, Buffer.from(`${digits.slice(2)}Z`))
    : der(GENERALIZED_TIME, Buffer.from(`${digits}Z`));
}

function commonName(name: string): Buffer {
  return der(SEQUENCE, der(SET, der(SEQUENCE, oid("2.5.4.3"), der(UTF8, Buffer.from(name)))));
}

const RSA_SHA256 = der(SEQUENCE, oid("1.2.840.113549.1.1.11"), der(NULL));
const CRITICAL = der(BOOLEAN, Buffer.from([0xff]));
const context = (number: number, ...parts: readonly Uint8Array[]): Buffer => der(0xa0 | number, ...parts);

function extension(id: string, critical: boolean, value: Uint8Array): Buffer {
  return der(SEQUENCE, oid(id), ...(critical ? [CRITICAL] : []), der(OCTET_STRING, value));
}

/** An IP address in network order. */
export function addressBytes(ip: string): Buffer {
  if (isIPv4(ip)) return Buffer.from(ip.split(".").map(Number));
  const [head = "", tail] = ip.split("::");
  const groups = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((part) => Number.parseInt(part, 16));
  const [left, right] = [groups(head), tail === undefined ? [] : groups(tail)];
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

/** `keyIdentifier` of a public key. */
function keyId(key: KeyObject): Buffer {
  return createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
}

/** A certificate with its private key. */
export interface Certificate {
  readonly pem: string;
  readonly key: KeyObject;
  readonly expiresMs: number;
}

interface CertificateRequest {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly signWith: KeyObject;
  readonly lifetimeMs: number;
  readonly extensions: readonly Buffer[];
}

const HOUR_MS = 3_600_000;

function issue(request: CertificateRequest): { pem: string; expiresMs: number } {
  const now = Date.now();
  const expiresMs = now + request.lifetimeMs;
  const serial = randomBytes(16);
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40);
  const body = der(
    SEQUENCE,
    context(0, der(INTEGER, Buffer.from([2]))),
    integer(serial),
    RSA_SHA256,
    commonName(request.issuer),
    der(SEQUENCE, time(new Date(now - HOUR_MS)), time(new Date(expiresMs))),
    commonName(request.subject),
    request.publicKey.export({ type: "spki", format: "der" }),
    context(3, der(SEQUENCE, ...request.extensions)),
  );
  const signature = sign("sha256", body, request.signWith);
  const certificate = der(SEQUENCE, body, RSA_SHA256, der(BIT_STRING, Buffer.from([0]), signature));
  const lines = certificate.toString("base64").match(/.{1,64}/g) ?? [];
  return { pem: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`, expiresMs };
}

const generate = promisify(generateKeyPair);
const CA_NAME = "BuildKit exec proxy";
const CA_LIFETIME_MS = 10 * 365 * 24 * HOUR_MS;
const LEAF_LIFETIME_MS = 24 * HOUR_MS;
/** A certificate this close to its end is replaced. */
const LEAF_REFRESH_MS = HOUR_MS;
const MAX_LEAVES = 1024;

/** A certificate authority that lives as long as the process, and the server certificates it has issued. */
export class CertificateAuthority {
  /** The authority's own certificate. */
  readonly pem: string;
  readonly #key: KeyObject;
  readonly #leafKey: KeyObject;
  /** Oldest use first. */
  readonly #leaves = new Map<string, Certificate>();

  private constructor(key: KeyObject, leafKey: KeyObject) {
    this.#key = key;
    this.#leafKey = leafKey;
    const publicKey = createPublicKey(key);
    this.pem = issue({
      subject: CA_NAME,
      issuer: CA_NAME,
      publicKey,
      signWith: key,
      lifetimeMs: CA_LIFETIME_MS,
      extensions: [
        extension("2.5.29.19", true, der(SEQUENCE, CRITICAL)),
        // digitalSignature, keyCertSign
        extension("2.5.29.15", true, der(BIT_STRING, Buffer.from([2, 0x84]))),
        extension("2.5.29.14", false, der(OCTET_STRING, keyId(publicKey))),
      ],
    }).pem;
  }

  static async create(): Promise<CertificateAuthority> {
    const [own, leaf] = await Promise.all([
      generate("rsa", { modulusLength: 2048 }),
      generate("rsa", { modulusLength: 2048 }),
    ]);
    return new CertificateAuthority(own.privateKey, leaf.privateKey);
  }

  /** A certificate for a host name or address, from the last {@link MAX_LEAVES} used or new. */
  certificateFor(host: string): Certificate {
    const known = this.#leaves.get(host);
    this.#leaves.delete(host);
    const leaf = known && known.expiresMs - LEAF_REFRESH_MS > Date.now() ? known : this.#issueFor(host);
    this.#leaves.set(host, leaf);
    for (const oldest of this.#leaves.keys()) {
      if (this.#leaves.size <= MAX_LEAVES) break;
      this.#leaves.delete(oldest);
    }
    return leaf;
  }

  #issueFor(host: string): Certificate {
    const publicKey = createPublicKey(this.#leafKey);
    const name = isIP(host) === 0 ? der(0x82, Buffer.from(host)) : der(0x87, addressBytes(host));
    const { pem, expiresMs } = issue({
      subject: host.slice(0, 64),
      issuer: CA_NAME,
      publicKey,
      signWith: this.#key,
      lifetimeMs: LEAF_LIFETIME_MS,
      extensions: [
        // digitalSignature, keyEncipherment
        extension("2.5.29.15", true, der(BIT_STRING, Buffer.from([5, 0xa0]))),
        extension("2.5.29.37", false, der(SEQUENCE, oid("1.3.6.1.5.5.7.3.1"))),
        extension("2.5.29.35", false, der(SEQUENCE, der(0x80, keyId(createPublicKey(this.#key))))),
        extension("2.5.29.17", false, der(SEQUENCE, name)),
      ],
    });
    return { pem, key: this.#leafKey, expiresMs };
  }
}
