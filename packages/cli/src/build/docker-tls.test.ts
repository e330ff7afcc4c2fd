import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readDockerConfigIn } from "@kiln/driver";
import { sha256Hex } from "@kiln/oci";
import { dockerTls } from "./docker-tls.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-docker-tls-"));
after(() => rmSync(root, { recursive: true }));
const host = "tcp://127.0.0.1:2376";
const dockerConfig = readDockerConfigIn(root);

function files(dir: string, names: readonly string[]): string {
  mkdirSync(dir, { recursive: true });
  for (const name of names) writeFileSync(join(dir, name), name);
  return dir;
}

test("the default context is secured as the environment says", () => {
  const certs = files(join(root, "certs"), ["ca.pem", "cert.pem", "key.pem"]);
  const ofEnv = (env: Record<string, string>) =>
    dockerTls({ context: "default", host }, { env, dockerConfig });
  assert.equal(ofEnv({}), undefined);
  assert.equal(ofEnv({ DOCKER_CERT_PATH: certs }), undefined);
  const verified = ofEnv({ DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certs });
  assert.equal(verified?.rejectUnauthorized, true);
  assert.equal(String(verified?.key), "key.pem");
  assert.equal(ofEnv({ DOCKER_TLS: "1", DOCKER_CERT_PATH: certs })?.rejectUnauthorized, false);
  assert.throws(
    () => ofEnv({ DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: "/nonexistent" }),
    /open \/nonexistent\/ca\.pem: no such file or directory/,
  );
});

test("another context is secured by the files that are stored for it, whatever the environment says", () => {
  const env = { DOCKER_TLS_VERIFY: "1" };
  assert.equal(dockerTls({ context: "plain", host }, { env, dockerConfig }), undefined);
  files(join(root, "contexts/tls", sha256Hex("far"), "docker"), ["ca.pem"]);
  const far = dockerTls({ context: "far", host }, { env, dockerConfig });
  assert.equal(String(far?.ca), "ca.pem");
  assert.equal(far?.cert, undefined);
  assert.equal(far?.rejectUnauthorized, true);
  const lax = dockerTls({ context: "far", host, skipsTlsVerify: true }, { env, dockerConfig });
  assert.equal(lax?.rejectUnauthorized, false);
});
