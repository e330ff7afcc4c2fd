import assert from "node:assert/strict";
import { it } from "node:test";
import { redactCredentials } from "./redact.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

it("masks user names and passwords", () => {
  for (const [text, masked] of [
    ["https://u:p@h/x", "https://xxxxx:xxxxx@h/x"],
    ["https://u:p@ss:w@h:80/x", "https://xxxxx:xxxxx@h:80/x"],
    ["https://token@h", "https://xxxxx@h"],
    ["https://:p@h?q=a@b", "https://:xxxxx@h?q=a@b"],
    ["ssh://git@[::1]:22/r", "ssh://xxxxx@[::1]:22/r"],
    ["HTTPS://u:p@h#f", "HTTPS://xxxxx:xxxxx@h#f"],
  ] as const) {
    assert.equal(redactCredentials(text), masked);
  }
});

it("leaves other texts alone", () => {
  for (const text of [
    "https://h/a@b:c",
    "git@github.com:a/b",
    `oci-layout://name@${DIGEST}`,
    `docker-image://alpine@${DIGEST}`,
    `docker-image://h:5000/alpine@${DIGEST}`,
    "no URL: a@b",
  ]) {
    assert.equal(redactCredentials(text), text);
  }
});

it("takes linear time", () => {
  const started = performance.now();
  redactCredentials(`https://${"a:@[".repeat(20_000)}/`);
  assert.ok(performance.now() - started < 2_000);
});
