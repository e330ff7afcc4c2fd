import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { BuildError, errorMessage } from "@kiln/base";

/** A private key that an in-process agent signs with. */
export interface SshKey {
  /** Public key as on SSH's wire. */
  readonly blob: Uint8Array;
  readonly comment: string;
  /** Signature as on SSH's wire; `flags` choose the hash for RSA keys. */
  sign(data: Uint8Array, flags: number): Uint8Array;
}

type JwkKey = Record<string, string>;

const curves: Record<string, { readonly ssh: string; readonly hash: string; readonly bytes: number }> = {
  "P-256": { ssh: "nistp256", hash: "sha256", bytes: 32 },
  "P-384": { ssh: "nistp384", hash: "sha384", bytes: 48 },
  "P-521": { ssh: "nistp521", hash: "sha512", bytes: 66 },
};

/** Reads an unencrypted private key (OpenSSH, PKCS#8, PKCS#1, SEC1). Throws `invalid_argument` for others. */
export function parseSshKey(text: string): SshKey {
  if (/^-----BEGIN OPENSSH PRIVATE KEY-----/m.test(text)) return parseOpenSsh(text);
  if (/ENCRYPTED/.test(text)) throw encrypted();
  try {
    return keyOf(createPrivateKey(text), "");
  } catch (error) {
    throw new BuildError("invalid_argument", `ssh: no usable key found: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function encrypted(): BuildError {
  return new BuildError("invalid_argument", "ssh: this private key is passphrase protected", {
    hint: "Add the key to an ssh-agent and forward the agent instead.",
  });
}

function parseOpenSsh(text: string): SshKey {
  const base64 = text.replace(/-----[^-]+-----/g, "").replace(/\s+/g, "");
  const r = new SshReader(Buffer.from(base64, "base64"));
  if (r.fixed(15).toString("latin1") !== "openssh-key-v1\0") throw malformed();
  const cipher = r.text();
  r.text();
  r.bytes();
  if (cipher !== "none") throw encrypted();
  if (r.uint32() !== 1) throw new BuildError("invalid_argument", "ssh: multi-key files are not supported");
  r.bytes();
  const inner = new SshReader(r.bytes());
  const check = inner.uint32();
  if (check !== inner.uint32()) throw malformed();
  const jwk = readPrivate(inner);
  return keyOf(createPrivateKey({ key: jwk, format: "jwk" }), inner.text());
}

function malformed(): BuildError {
  return new BuildError("invalid_argument", "ssh: malformed OpenSSH key");
}

function readPrivate(r: SshReader): JwkKey {
  const type = r.text();
  if (type === "ssh-ed25519") {
    const x = r.bytes();
    return { kty: "OKP", crv: "Ed25519", x: b64(x), d: b64(r.bytes().subarray(0, 32)) };
  }
  if (type === "ssh-rsa") return readRsa(r);
  const curve = Object.entries(curves).find(([, c]) => `ecdsa-sha2-${c.ssh}` === type);
  if (!curve) throw new BuildError("invalid_argument", `ssh: unsupported key type ${JSON.stringify(type)}`);
  r.text();
  const point = r.bytes();
  const { bytes } = curve[1];
  const d = trimZeros(r.bytes());
  return {
    kty: "EC",
    crv: curve[0],
    x: b64(point.subarray(1, 1 + bytes)),
    y: b64(point.subarray(1 + bytes, 1 + 2 * bytes)),
    d: b64(Buffer.concat([Buffer.alloc(Math.max(bytes - d.length, 0)), d])),
  };
}

function readRsa(r: SshReader): JwkKey {
  const [n, e, d, qi, p, q] = Array.from({ length: 6 }, () => trimZeros(r.bytes())) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  const modulo = (prime: Buffer): string => {
    const hex = (big(d) % (big(prime) - 1n)).toString(16);
    return b64(Buffer.from(hex.length % 2 ? `0${hex}` : hex, "hex"));
  };
  return {
    kty: "RSA",
    n: b64(n),
    e: b64(e),
    d: b64(d),
    p: b64(p),
    q: b64(q),
    dp: modulo(p),
    dq: modulo(q),
    qi: b64(qi),
  };
}

function big(bytes: Buffer): bigint {
  return BigInt(`0x${bytes.toString("hex") || "0"}`);
}

function b64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

function trimZeros(bytes: Buffer): Buffer {
  let at = 0;
  while (at < bytes.length - 1 && bytes[at] === 0) at++;
  return bytes.subarray(at);
}

function keyOf(key: KeyObject, comment: string): SshKey {
  const jwk = createPublicKey(key).export({ format: "jwk" });
  const raw = (value: string | undefined): Buffer => Buffer.from(value ?? "", "base64url");
  switch (key.asymmetricKeyType) {
    case "ed25519":
      return {
        blob: sshStrings("ssh-ed25519", raw(jwk.x)),
        comment,
        sign: (data) => sshStrings("ssh-ed25519", sign(null, data, key)),
      };
    case "rsa":
      return {
        blob: sshStrings("ssh-rsa", mpint(raw(jwk.e)), mpint(raw(jwk.n))),
        comment,
        sign: (data, flags) => {
          const [name, hash] =
            flags & 4
              ? ["rsa-sha2-512", "sha512"]
              : flags & 2
                ? ["rsa-sha2-256", "sha256"]
                : ["ssh-rsa", "sha1"];
          return sshStrings(name as string, sign(hash as string, data, key));
        },
      };
    case "ec": {
      const curve = curves[jwk.crv ?? ""];
      if (!curve) break;
      const name = `ecdsa-sha2-${curve.ssh}`;
      return {
        blob: sshStrings(name, curve.ssh, Buffer.concat([Buffer.of(4), raw(jwk.x), raw(jwk.y)])),
        comment,
        sign: (data) => {
          const rs = sign(curve.hash, data, { key, dsaEncoding: "ieee-p1363" });
          const half = rs.length / 2;
          return sshStrings(name, sshStrings(mpint(rs.subarray(0, half)), mpint(rs.subarray(half))));
        },
      };
    }
  }
  throw new BuildError("invalid_argument", `ssh: unsupported key type ${key.asymmetricKeyType}`);
}

function mpint(bytes: Uint8Array): Buffer {
  const trimmed = trimZeros(Buffer.from(bytes));
  return (trimmed[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), trimmed]) : trimmed;
}

/** Length-prefixed strings, one after the other. */
export function sshStrings(...parts: readonly (string | Uint8Array)[]): Buffer {
  const out: Buffer[] = [];
  for (const part of parts) {
    const bytes = Buffer.from(part as Uint8Array);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    out.push(length, bytes);
  }
  return Buffer.concat(out);
}

/** Reads SSH's wire types; throws `invalid_argument` past the end. */
export class SshReader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  }

  fixed(length: number): Buffer {
    if (this.#at + length > this.#data.length) throw malformed();
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }

  uint32(): number {
    return this.fixed(4).readUInt32BE();
  }

  bytes(): Buffer {
    return this.fixed(this.uint32());
  }

  text(): string {
    return this.bytes().toString("utf8");
  }
}
