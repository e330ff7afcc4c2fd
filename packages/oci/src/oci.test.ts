import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import {
  digestProblem,
  familiarReference,
  formatPlatform,
  formatPlatformAll,
  formatReference,
  layerTypeWithCompression,
  mediaTypes,
  normalizePlatform,
  onlyPlatform,
  parseDockerReference,
  parseManifestDocument,
  parsePlatform,
  parseReference,
  platformVector,
  Sha256,
  sha256,
  sha256Hex,
  strictPlatform,
} from "./index.ts";

const hex = "a".repeat(64);

test("sha256 agrees with the platform's at every length around block borders", () => {
  for (let n = 0; n < 200; n++) {
    const data = randomBytes(n);
    assert.equal(sha256Hex(data), createHash("sha256").update(data).digest("hex"));
    const parts = new Sha256();
    for (let i = 0; i < n; i += 7) parts.update(data.subarray(i, i + 7));
    assert.equal(parts.hex(), sha256Hex(data));
  }
  assert.equal(sha256("é"), `sha256:${createHash("sha256").update("é").digest("hex")}`);
});

test("digests are refused with go-digest's texts", () => {
  assert.equal(digestProblem(`sha256:${hex}`), undefined);
  assert.equal(digestProblem(`sha256:${hex.toUpperCase()}`), "invalid checksum digest format");
  assert.equal(digestProblem("sha256:aa"), "invalid checksum digest length");
  assert.equal(digestProblem("md5:aa"), "unsupported digest algorithm");
  assert.equal(digestProblem(":aa"), "invalid checksum digest format");
});

test("references: Docker's defaults, familiar form, texts", () => {
  const table: [string, string, string][] = [
    ["alpine", "docker.io/library/alpine", "alpine"],
    ["alpine:3", "docker.io/library/alpine:3", "alpine:3"],
    ["index.docker.io/a", "docker.io/library/a", "a"],
    ["docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"],
    ["localhost/a", "localhost/a", "localhost/a"],
    ["host:5000/a:t", "host:5000/a:t", "host:5000/a:t"],
    ["[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"],
    [`u/a:t@sha256:${hex}`, `docker.io/u/a:t@sha256:${hex}`, `u/a:t@sha256:${hex}`],
  ];
  for (const [text, full, familiar] of table) {
    const ref = parseReference(text);
    assert.equal(formatReference(ref), full);
    assert.equal(familiarReference(ref), familiar);
  }
  assert.equal(formatReference(parseDockerReference("a")), "docker.io/library/a:latest");
  assert.equal(
    formatReference(parseDockerReference(`a:b@sha256:${hex}`)),
    `docker.io/library/a@sha256:${hex}`,
  );
  const wrong: [string, string][] = [
    ["", "invalid reference format"],
    ["Foo", "invalid reference format: repository name (library/Foo) must be lowercase"],
    ["a//b", "invalid reference format"],
    ["a:", "invalid reference format"],
    ["a b", "invalid reference format"],
    [hex, `invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`],
    ["a@sha256:abcdef0123456789abcdef0123456789", "invalid checksum digest length"],
    ["a".repeat(256), "repository name must not be more than 255 characters"],
  ];
  for (const [text, message] of wrong) {
    assert.throws(() => parseReference(text), { code: "invalid_argument", message });
  }
});

test("platforms: parse and format", () => {
  const table: [string, string][] = [
    ["linux/amd64", "linux/amd64"],
    ["x86_64", "linux/amd64"],
    ["linux", "linux/amd64"],
    ["arm64", "linux/arm64"],
    ["linux/arm64/v8", "linux/arm64/v8"],
    ["linux/arm", "linux/arm"],
    ["armel", "linux/arm/v6"],
    ["linux/arm/7", "linux/arm/v7"],
    ["Macos/aarch64", "darwin/arm64"],
    ["windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"],
    ["windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"],
    ["linux/amd64/v3", "linux/amd64/v3"],
  ];
  for (const [text, full] of table) assert.equal(formatPlatformAll(parsePlatform(text)), full);
  assert.equal(formatPlatform(parsePlatform("windows(10.0.17763)/amd64")), "windows/amd64");
  assert.equal(formatPlatform(normalizePlatform(parsePlatform("linux/arm64/v8"))), "linux/arm64");
  assert.equal(
    formatPlatform(parsePlatform("linux", { os: "linux", architecture: "arm", variant: "v6" })),
    "linux/arm/v6",
  );
  for (const bad of ["", "foo", "linux/a/b/c", "linux/*", "lin ux/amd64", "linux/"]) {
    assert.throws(() => parsePlatform(bad), { code: "invalid_argument" });
  }
});

test("platforms: what runs on what", () => {
  const runs = (host: string, image: string): boolean =>
    onlyPlatform(parsePlatform(host)).match(parsePlatform(image));
  assert.ok(runs("linux/amd64", "linux/386"));
  assert.ok(runs("linux/amd64/v3", "linux/amd64/v2"));
  assert.ok(!runs("linux/amd64", "linux/amd64/v2"));
  assert.ok(runs("linux/arm64", "linux/arm64/v8"));
  assert.ok(runs("linux/arm64", "linux/arm/v5"));
  assert.ok(!runs("linux/arm/v6", "linux/arm/v7"));
  assert.ok(runs("windows(10.0.20348)/amd64", "windows(10.0.20348.1)/amd64"));
  assert.ok(!runs("windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"));
  assert.ok(!strictPlatform(parsePlatform("linux/amd64")).match(parsePlatform("linux/386")));
  assert.deepEqual(platformVector(normalizePlatform(parsePlatform("linux/arm64"))).map(formatPlatform), [
    "linux/arm64/v8",
    "linux/arm/v8",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/arm/v5",
  ]);
  const m = onlyPlatform(parsePlatform("linux/arm64"));
  assert.ok(m.less(parsePlatform("linux/arm64"), parsePlatform("linux/arm/v7")));
  assert.ok(!m.less(parsePlatform("linux/arm/v7"), parsePlatform("linux/arm64")));
});

test("a document that is both manifest and index is refused (CVE-2021-41190)", () => {
  const blob = { mediaType: mediaTypes.ociConfig, digest: `sha256:${hex}`, size: 1 };
  const both = JSON.stringify({ schemaVersion: 2, config: blob, layers: [], manifests: [blob] });
  for (const type of ["", mediaTypes.ociIndex, mediaTypes.ociManifest]) {
    assert.throws(() => parseManifestDocument(both, type), { code: "invalid_argument" });
  }
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    config: blob,
    layers: [],
  });
  assert.throws(() => parseManifestDocument(manifest, mediaTypes.ociManifest), /found index/);
  const ok = parseManifestDocument(JSON.stringify({ config: blob, layers: [blob] }));
  assert.equal(ok.kind, "manifest");
  assert.throws(
    () => parseManifestDocument(JSON.stringify({ config: { ...blob, size: -1 }, layers: [] })),
    /size/,
  );
  assert.throws(
    () =>
      parseManifestDocument(JSON.stringify({ config: { ...blob, digest: "sha256:../../x" }, layers: [] })),
    /digest/,
  );
});

test("layer types keep their family when the compression changes", () => {
  assert.equal(layerTypeWithCompression(mediaTypes.dockerLayerGzip, "zstd"), mediaTypes.dockerLayerZstd);
  assert.equal(
    layerTypeWithCompression(mediaTypes.ociLayerNondistributable, "gzip"),
    mediaTypes.ociLayerNondistributableGzip,
  );
});
