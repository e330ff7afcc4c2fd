import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { SourceOpSchema } from "@kiln/api/pb";
import { annotationKeys, mediaTypes, parsePlatform } from "@kiln/oci";
import { Registries } from "@kiln/registry";
import { TestRegistry } from "@kiln/registry/testing";
import { SessionAuthenticators } from "../source-sessions.ts";
import { FakeRefs, fakeContent, fakeContext, fakeSessions } from "../testing/fake-engine.ts";
import { BlobSource } from "./blob-source.ts";
import { DocumentLeases } from "./document-leases.ts";
import { ImageSource, LayoutSource } from "./image-source.ts";
import { imageLayers } from "./pull-manifests.ts";

const limits = { retryDelayMs: 5, maxAttempts: 2 };

function services(has: Parameters<typeof fakeSessions>[0] = {}) {
  const sessions = fakeSessions(has);
  const refs = new FakeRefs();
  const stores = fakeContent();
  return {
    fakes: refs,
    refs: refs.manager,
    sessions,
    authenticators: new SessionAuthenticators(sessions),
    registries: new Registries({ limits }),
    ...stores,
    documents: new DocumentLeases(stores.leases, refs.manager),
  };
}

function addImage(registry: TestRegistry, repository: string, arch: string, layers: readonly string[]) {
  const diffIds = layers.map(
    (layer) => `sha256:${createHash("sha256").update(`raw ${layer}`).digest("hex")}`,
  );
  const config = registry.addBlob(
    repository,
    JSON.stringify({ os: "linux", architecture: arch, rootfs: { type: "layers", diff_ids: diffIds } }),
    mediaTypes.ociConfig,
  );
  const blobs = layers.map((layer) => registry.addBlob(repository, layer, mediaTypes.ociLayerGzip));
  const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: blobs };
  return registry.addManifest(repository, manifest, mediaTypes.ociManifest);
}

function addIndex(registry: TestRegistry, repository: string, tag: string) {
  const amd = addImage(registry, repository, "amd64", ["a1", "a2"]);
  const arm = addImage(registry, repository, "arm64", ["b1"]);
  return registry.addManifest(
    repository,
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociIndex,
      manifests: [
        { ...arm, platform: parsePlatform("linux/arm64") },
        { ...amd, platform: parsePlatform("linux/amd64") },
        {
          ...amd,
          platform: { os: "unknown", architecture: "unknown" },
          annotations: {
            [annotationKeys.referenceType]: "attestation-manifest",
            [annotationKeys.referenceDigest]: amd.digest,
          },
        },
      ],
    },
    mediaTypes.ociIndex,
    tag,
  );
}

test("image: the key, lazy layers, the platform's manifest", async () => {
  await using registry = await TestRegistry.start();
  const at = services();
  using fakes = at.fakes;
  const index = addIndex(registry, "app", "v1");
  const source = new ImageSource(at);
  const { ctx, statuses } = fakeContext();
  const identifier = `docker-image://${registry.host}/app:v1`;
  const instance = source.resolve({ identifier, attrs: new Map(), platform: parsePlatform("linux/amd64") });
  const key = await instance.cacheKey(0, ctx);
  const text = `{"Digest":"${index.digest}","OS":"linux","Arch":"amd64"}`;
  assert.deepEqual(key, {
    key: `sha256:${createHash("sha256").update(text).digest("hex")}`,
    pin: index.digest,
    done: true,
  });
  assert.equal(statuses[0], `resolve ${registry.host}/app:v1`);
  assert.equal(registry.seen("GET", /blobs/).length, 1, "only the config is downloaded");
  const ref = await instance.snapshot(ctx);
  const record = fakes.records.get(ref!.id)!;
  assert.equal(record.layer?.desc.annotations?.[annotationKeys.uncompressed], record.layer?.blob.diffId);
  assert.deepEqual(record.layer?.blob.remotes, [`${registry.host}/app`]);
  const chunks: Uint8Array[] = [];
  for await (const chunk of await record.layer!.blob.provider!(record.layer!.desc, { signal: ctx.signal }))
    chunks.push(chunk);
  assert.equal(Buffer.concat(chunks).toString(), "a2");
  await ref!.release();
  assert.equal(fakes.held, 0);

  // By digest, what was pulled before needs no registry.
  registry.requests.length = 0;
  const byDigest = source.resolve({
    identifier: `${identifier}@${index.digest}`,
    attrs: new Map(),
    platform: parsePlatform("linux/amd64"),
  });
  assert.equal((await byDigest.cacheKey(0, ctx)).key, key.key);
  assert.equal(registry.requests.length, 0);
});

test("image: limits, checksums, platforms and bad attributes", async () => {
  await using registry = await TestRegistry.start();
  const at = services();
  using fakes = at.fakes;
  const index = addIndex(registry, "app", "v1");
  const source = new ImageSource(at);
  const { ctx } = fakeContext();
  const resolve = (attrs: Record<string, string>, platform = "linux/amd64") =>
    source.resolve({
      identifier: `docker-image://${registry.host}/app:v1`,
      attrs: new Map(Object.entries(attrs)),
      platform: parsePlatform(platform),
    });
  const limited = resolve({ "image.layerlimit": "1" });
  const text = `{"Digest":"${index.digest}","OS":"linux","Arch":"amd64","Limit":1}`;
  assert.equal(
    (await limited.cacheKey(0, ctx)).key,
    `sha256:${createHash("sha256").update(text).digest("hex")}`,
  );
  const ref = await limited.snapshot(ctx);
  assert.equal(fakes.records.get(ref!.id)?.layer?.parent, undefined);
  await assert.rejects(
    resolve({ "image.layerlimit": "3" }).cacheKey(0, ctx),
    /layer limit 3 is greater than the number of layers in the image 2/,
  );
  await assert.rejects(
    resolve({ "image.checksum": `sha256:${"0".repeat(64)}` }).cacheKey(0, ctx),
    /does not match expected checksum/,
  );
  await assert.rejects(resolve({}, "linux/s390x").cacheKey(0, ctx), { code: "not_found" });
  for (const attrs of [
    { "image.layerlimit": "0" },
    { "image.recordtype": "x" },
    { "image.resolvemode": "x" },
    { "image.checksum": "x" },
  ]) {
    assert.throws(() => resolve(attrs as Record<string, string>), { code: "invalid_argument" });
  }
});

test("image: layers that don't fit their config, and masses of them, are refused", () => {
  const layer = {
    mediaType: "application/vnd.oci.image.layer.v1.tar",
    digest: `sha256:${"1".repeat(64)}`,
    size: 1,
  };
  const layersOf = (layers: number, ids: unknown) =>
    imageLayers({
      manifest: { layers: Array.from({ length: layers }, () => layer) },
      configData: Buffer.from(JSON.stringify({ rootfs: { diff_ids: ids } })),
    } as unknown as Parameters<typeof imageLayers>[0]);
  const ids = (n: number): string[] => Array.from({ length: n }, () => layer.digest);
  assert.equal(layersOf(3, ids(3)).length, 3);
  assert.throws(() => layersOf(3, ids(2)), /mismatched image rootfs and manifest layers/);
  assert.throws(() => layersOf(1, ["sha256:../../x"]), /invalid diff id of layer 0/);
  assert.throws(() => layersOf(1, [null]), /invalid diff id of layer 0/);
  assert.throws(() => layersOf(1, "x"), /mismatched/);
  assert.throws(() => layersOf(50_000, ids(50_000)), /the image has 50000 layers, more than 1000/);
  assert.throws(() => layersOf(1, ids(50_000)), /the image has 50000 layers/);
});

test("image: metadata with config and attestation chain", async () => {
  await using registry = await TestRegistry.start();
  const at = services();
  using _fakes = at.fakes;
  const index = addIndex(registry, "app", "v1");
  const source = new ImageSource(at);
  const op = create(SourceOpSchema, { identifier: `docker-image://${registry.host}/app:v1` });
  const { ctx } = fakeContext();
  const found = await source.resolveMetadata(
    op,
    {
      platform: parsePlatform("linux/amd64"),
      logName: "",
      resolveMode: "default",
      image: { noConfig: false, attestationChain: true, resolveAttestations: [] },
    },
    ctx,
  );
  assert.equal(found.image?.digest, index.digest);
  assert.equal(JSON.parse(Buffer.from(found.image!.config).toString()).architecture, "amd64");
  assert.equal(found.image?.attestationChain?.root, index.digest);
  assert.equal(
    found.image?.attestationChain?.attestationManifest,
    found.image?.attestationChain?.imageManifest,
  );
  assert.ok(found.image?.attestationChain?.blobs.has(index.digest));
});

test("layout and blob sources", async () => {
  await using registry = await TestRegistry.start();
  const manifest = addImage(registry, "x", "amd64", ["layer"]);
  const all = new Map<string, Uint8Array>([
    ...registry.blobs,
    [manifest.digest, registry.manifests.get(manifest.digest)!.body],
  ]);
  const at = services({ blobs: all });
  using fakes = at.fakes;
  const { ctx } = fakeContext();
  const attrs = new Map([["oci.store", "store"]]);
  const layout = new LayoutSource(at);
  const instance = layout.resolve({
    identifier: `oci-layout://any/Name@${manifest.digest}`,
    attrs,
    platform: parsePlatform("linux/amd64"),
  });
  assert.equal((await instance.cacheKey(0, ctx)).pin, manifest.digest);
  const ref = await instance.snapshot(ctx);
  assert.equal(fakes.records.get(ref!.id)?.layer?.blob.remotes, undefined);
  const noDigest = layout.resolve({ identifier: "oci-layout://any/name:tag", attrs, platform: undefined });
  await assert.rejects(noDigest.cacheKey(0, ctx), /must have digest/);

  const blob = registry.addBlob("x", "content", mediaTypes.octetStream);
  const blobs = new BlobSource(at);
  const file = blobs.resolve({
    identifier: `docker-image+blob://${registry.host}/x@${blob.digest}`,
    attrs: new Map([
      ["http.filename", "../../etc/name"],
      ["http.perm", "0755"],
    ]),
    platform: undefined,
  });
  const text = `{"Version":"v1","Digest":"${blob.digest}","Filename":"name","Perm":493,"UID":0,"GID":0}`;
  assert.equal(
    (await file.cacheKey(0, ctx)).key,
    `sha256:${createHash("sha256").update(text).digest("hex")}`,
  );
  const made = await file.snapshot(ctx);
  const path = join(fakes.dir(made), "name");
  assert.equal(readFileSync(path, "utf8"), "content");
  assert.equal(statSync(path).mode & 0o777, 0o755);
  assert.equal(statSync(path).mtimeMs, 0);
  const corrupt = new Map(all).set(blob.digest, Buffer.from("CONTENT"));
  const bad = services({ blobs: corrupt });
  using _badFakes = bad.fakes;
  const evil = new BlobSource(bad).resolve({
    identifier: `oci-layout+blob://n@${blob.digest}`,
    attrs,
    platform: undefined,
  });
  await assert.rejects(evil.snapshot(ctx), { code: "data_loss" });
  assert.equal(bad.fakes.held, 0);
  assert.throws(
    () =>
      blobs.resolve({
        identifier: `oci-layout+blob://n@${blob.digest}`,
        attrs: new Map(),
        platform: undefined,
      }),
    /requires store id/,
  );
});
