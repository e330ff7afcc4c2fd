import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { verifyPgpSignature } from "./signature.ts";

const hasGpg = spawnSync("gpg", ["--version"]).status === 0;

test("PGP signatures: good, of others, over other bytes, weak, expired keys", { skip: !hasGpg }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-gpg-"));
  const gpg = (...args: string[]): string =>
    execFileSync(
      "gpg",
      ["--homedir", dir, "--batch", "--no-tty", "--passphrase", "", "--pinentry-mode", "loopback", ...args],
      {
        stdio: ["ignore", "pipe", "ignore"],
      },
    ).toString();
  try {
    const file = join(dir, "data");
    writeFileSync(file, "payload");
    gpg("--quick-gen-key", "one", "ed25519", "sign", "never");
    gpg("--quick-gen-key", "two", "rsa2048", "sign", "never");
    gpg("--quick-gen-key", "short", "rsa1024", "sign", "never");
    gpg("--faked-system-time", "20200101T000000", "--quick-gen-key", "old", "ed25519", "sign", "1y");
    const key = (user: string): string => gpg("--armor", "--export", user);
    const sign = (user: string, ...args: string[]): string =>
      gpg(...args, "--armor", "--local-user", user, "--detach-sign", "--output", "-", file);
    const check = (publicKey: string, signature: string, rejectExpired = false): Promise<void> =>
      verifyPgpSignature(file, { publicKey, signature, rejectExpired, signal: new AbortController().signal });
    const one = sign("one");
    await check(key("one"), one);
    await check(key("one") + key("two"), sign("two"));
    await assert.rejects(check(key("two"), one), { code: "permission_denied", message: /unknown entity/ });
    await assert.rejects(check(key("short"), sign("short")), /RSA key too short/);
    await assert.rejects(check(key("two"), sign("two", "--digest-algo", "SHA1")), /weak|invalid|no valid/);
    const old = sign("old", "--faked-system-time", "20200601T000000");
    await check(key("old"), old);
    await assert.rejects(check(key("old"), old, true), /key expired/);
    await assert.rejects(check("nothing", one), /no armored data found/);
    await assert.rejects(check(key("one"), "nothing"), { code: "invalid_argument" });
    writeFileSync(file, "Payload");
    await assert.rejects(check(key("one"), one), { code: "permission_denied", message: /invalid signature/ });
  } finally {
    spawnSync("gpgconf", ["--homedir", dir, "--kill", "all"]);
    rmSync(dir, { recursive: true, force: true });
  }
});
