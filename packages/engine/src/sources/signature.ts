import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { runProgram } from "./run-program.ts";
import { invalid } from "./source-attrs.ts";

/** A detached signature and what it should be by. */
export interface SignatureCheck {
  /** ASCII-armored. */
  readonly signature: string;
  /** Armored PGP keys, or one line of an SSH public key. */
  readonly publicKey: string;
  /** Refuse keys that have expired since. */
  readonly rejectExpired: boolean;
  readonly signal: AbortSignal;
}

/** OpenPGP numbers of SHA-256, SHA-384, SHA-512. */
const STRONG_HASHES = new Set(["8", "9", "10"]);
/** RSA, RSA sign-only, ECDSA, EdDSA. */
const KEY_ALGORITHMS = new Set(["1", "3", "19", "22"]);
const MIN_RSA_BITS = 2048;
const MAX_CLOCK_SKEW_S = 5 * 60;
const MAX_KEY_CHARS = 1024 * 1024;

/**
 * Verifies a detached PGP signature over a file with the machine's `gpg`, in a key ring that holds nothing
 * but the given keys. Weak hashes, other key algorithms, short RSA keys and revoked keys are refused.
 *
 * @throws BuildError `permission_denied` when it isn't good, `unimplemented` without gpg.
 */
export async function verifyPgpSignature(file: string, check: SignatureCheck): Promise<void> {
  if (!check.signature.startsWith("-----BEGIN PGP SIGNATURE-----"))
    throw invalid("failed to decode armored signature");
  if (check.publicKey.length > MAX_KEY_CHARS) throw invalid("public key is too long");
  await inTempDir(async (dir) => {
    const keys = join(dir, "keys.asc");
    const signature = join(dir, "signature.asc");
    await writeFile(keys, check.publicKey);
    await writeFile(signature, check.signature);
    const gpg = async (...args: string[]): Promise<string> => {
      const base = [
        "--homedir",
        dir,
        "--batch",
        "--no-tty",
        "--no-autostart",
        "--trust-model",
        "always",
        "--status-fd",
        "1",
      ];
      const env = { PATH: process.env.PATH ?? "", LC_ALL: "C", HOME: dir };
      const { stdout } = await runProgram("gpg", [...base, ...args], { signal: check.signal, env });
      return stdout.toString();
    };
    const imported = await gpg("--import", keys);
    if (!/^\[GNUPG:\] IMPORT_OK /m.test(imported)) {
      throw invalid("failed to read armored public key: no armored data found");
    }
    judge(await gpg("--verify", signature, file), check.rejectExpired);
    checkKeyLength(await gpg("--with-colons", "--list-keys"));
  });
}

/** Reads gpg's status lines. */
function judge(status: string, rejectExpired: boolean): void {
  const lines = new Map<string, string[]>();
  for (const match of status.matchAll(/^\[GNUPG:\] (\S+) ?(.*)$/gm)) {
    // Two signatures in one file: all would have to be judged.
    if (match[1] === "VALIDSIG" && lines.has("VALIDSIG")) throw bad("more than one signature");
    lines.set(match[1]!, match[2]!.split(" "));
  }
  const by = (lines.get("ERRSIG") ?? lines.get("BADSIG") ?? [])[0] ?? "";
  if (lines.has("REVKEYSIG")) throw bad("key revoked");
  if (lines.has("EXPSIG")) throw bad("signature expired");
  if (lines.has("EXPKEYSIG") && rejectExpired) throw bad(`key expired`);
  if (lines.has("NO_PUBKEY")) throw bad(`signature by ${by}: openpgp: signature made by unknown entity`);
  if (lines.has("BADSIG"))
    throw bad(`signature by ${by}: openpgp: invalid signature: hash tag doesn't match`);
  const valid = lines.get("VALIDSIG");
  if (!valid || !(lines.has("GOODSIG") || lines.has("EXPKEYSIG"))) throw bad("no valid signature found");
  const [, , timestamp, , , , keyAlgorithm, hash] = valid;
  if (!STRONG_HASHES.has(hash ?? "")) throw bad(`rejecting weak/unknown hash: ${hash}`);
  if (!KEY_ALGORITHMS.has(keyAlgorithm ?? ""))
    throw bad(`rejecting unsupported pubkey algorithm: ${keyAlgorithm}`);
  if (!(Number(timestamp) <= Date.now() / 1000 + MAX_CLOCK_SKEW_S)) {
    throw bad("signature creation time is in the future");
  }
}

function checkKeyLength(listing: string): void {
  for (const match of listing.matchAll(/^pub:[^:]*:(\d+):(\d+):/gm)) {
    if ((match[2] === "1" || match[2] === "3") && Number(match[1]) < MIN_RSA_BITS) {
      throw bad(`RSA key too short: ${match[1]} bits`);
    }
  }
}

/** Verifies an SSH signature (namespace `git`) over `data` with the machine's `ssh-keygen`. */
export async function verifySshSignature(data: Uint8Array, check: SignatureCheck): Promise<void> {
  const key =
    /^\s*((?:ssh-(?:rsa|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9@.-]+)\s+[A-Za-z0-9+/=]+)/.exec(
      check.publicKey,
    )?.[1];
  if (key === undefined) throw invalid("failed to parse ssh public key: ssh: no key found");
  await inTempDir(async (dir) => {
    const signers = join(dir, "signers");
    const signature = join(dir, "signature");
    await writeFile(signers, `git namespaces="git" ${key}\n`);
    await writeFile(signature, check.signature);
    const { code, stderr } = await runProgram(
      "ssh-keygen",
      ["-Y", "verify", "-f", signers, "-I", "git", "-n", "git", "-s", signature],
      { signal: check.signal, env: { PATH: process.env.PATH ?? "", LC_ALL: "C", HOME: dir }, stdin: data },
    );
    if (code !== 0) throw bad(`failed to verify ssh signature: ${stderr.trim().split("\n").at(-1) ?? ""}`);
  });
}

async function inTempDir<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "kiln-signature-"));
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function bad(message: string): BuildError {
  return new BuildError("permission_denied", message);
}
