import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { compress } from "./compress.ts";
import { isIncompressible } from "./incompressible.ts";

const MIB = 1 << 20;

test("random data is incompressible", () => {
  for (let n = 0; n < 50; n++) assert.equal(isIncompressible(randomBytes(MIB)), true);
});

test("programs, texts, zeros and repeated random data are not", () => {
  const program = readFileSync(process.execPath);
  for (let at = 0; at < 32 * MIB; at += MIB) {
    assert.equal(isIncompressible(program.subarray(at, at + MIB)), false, `at ${at}`);
  }
  assert.equal(isIncompressible(Buffer.alloc(MIB)), false);
  assert.equal(isIncompressible(Buffer.from("lorem ipsum ".repeat(90_000))), false);
  assert.equal(isIncompressible(Buffer.alloc(MIB, randomBytes(1000))), false);
  assert.equal(isIncompressible(Buffer.from(randomBytes(MIB).toString("base64")).subarray(0, MIB)), false);
  assert.equal(isIncompressible(randomBytes(1000)), false);
});

test("gzip stores what it can't make smaller, and nothing is lost", async () => {
  const data = Buffer.concat([randomBytes(3 * MIB), Buffer.alloc(2 * MIB, "text "), randomBytes(MIB + 5)]);
  const parts: Uint8Array[] = [];
  for await (const part of compress([data], { kind: "gzip" })) parts.push(Buffer.from(part));
  const packed = Buffer.concat(parts);
  assert.ok(packed.length < 4.1 * MIB);
  assert.ok(gunzipSync(packed).equals(data));
});
