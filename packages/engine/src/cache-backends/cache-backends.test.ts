import assert from "node:assert/strict";
import { test } from "node:test";
import { annotationKeys, mediaTypes } from "@kiln/oci";
import { TestRegistry } from "@kiln/registry/testing";
import { CacheChains, inlineRecords, marshalChains } from "@kiln/solver/remote-cache";
import type { RefManager } from "@kiln/store";
import type { Builder } from "../solve/builder.ts";
import { fakeContext } from "../sources/testing/fake-engine.ts";
import { createCacheBackends } from "./cache-backends.ts";
import { ImportsUnderway } from "./imported-results.ts";
import { localCache } from "./local-cache.ts";
import { manifestFormat, writeManifestCache } from "./manifest-format.ts";
import { importManifest } from "./manifest-import.ts";
import { registryCache } from "./registry-cache.ts";
import { shownCacheImports } from "./shown-imports.ts";
import { digestOf, fakeHost, layerOf, MemoryLayers, sampleCache, testServer } from "./testing/fake-host.ts";

const layers = ["base layer", "top layer"].map((text) => new TextEncoder().encode(text));

async function written(attrs: Readonly<Record<string, string>>) {
  const provider = new MemoryLayers();
  const host = fakeHost();
  const { ctx, statuses } = fakeContext();
  const cache = sampleCache(host, layers);
  let text = "";
  const response = await writeManifestCache(
    cache,
    manifestFormat(new Map(Object.entries(attrs))),
    {
      layer: async ({ descriptor }) => void provider.put(host.stored.get(descriptor.digest)!),
      config: async (_desc, bytes) => void provider.put(bytes),
      manifest: async (_desc, bytes) => {
        provider.put(bytes);
        text = new TextDecoder().decode(bytes);
      },
    },
    ctx,
  );
  return { provider, cache, statuses, text, top: JSON.parse(response.get("cache.manifest") ?? "null") };
}

test("every manifest format can be read again", async () => {
  const formats: [Record<string, string>, string, string][] = [
    [{}, mediaTypes.ociManifest, mediaTypes.ociLayerGzip],
    [{ "image-manifest": "false" }, mediaTypes.ociIndex, mediaTypes.ociLayerGzip],
    [{ "oci-mediatypes": "false" }, mediaTypes.dockerManifestList, mediaTypes.dockerLayerGzip],
  ];
  for (const [attrs, type, layerType] of formats) {
    const { provider, cache, text, top } = await written(attrs);
    assert.equal(top.mediaType, type);
    const doc = JSON.parse(text);
    assert.equal((doc.layers ?? doc.manifests)[0].mediaType, layerType);
    const chains = new CacheChains();
    await importManifest({ ...top, mediaType: "" }, { provider, chains, ctx: fakeContext().ctx });
    assert.deepEqual(marshalChains(chains).config, cache.config);
  }
});

test("progress tells of each part; a Docker image manifest is refused; nothing is written for nothing", async () => {
  const { statuses, top } = await written({});
  assert.deepEqual(
    statuses.filter((id) => id.includes("manifest")),
    [`writing cache image manifest ${top.digest}`, `writing cache image manifest ${top.digest}`],
  );
  await assert.rejects(
    written({ "oci-mediatypes": "false", "image-manifest": "true" }),
    /OCI mediatypes are required/,
  );
  const { ctx, statuses: empty } = fakeContext();
  const none = await writeManifestCache(
    marshalChains(new CacheChains()),
    manifestFormat(new Map()),
    {} as never,
    ctx,
  );
  assert.equal(none.size, 0);
  assert.equal(empty[0], "skipping cache export for empty result");
});

test("inline caches of all platforms of an image are read", async () => {
  const provider = new MemoryLayers();
  const manifests = ["amd64", "arm64"].map((arch) => {
    const layer = new TextEncoder().encode(`layer ${arch}`);
    const desc = layerOf(layer);
    const chains = new CacheChains();
    const remote = { descriptors: [desc], provider: undefined };
    chains.add(digestOf(arch), [], [{ remote, createdAtNs: 1n, vertex: "", index: 0 }]);
    const records = JSON.stringify(inlineRecords(chains, [desc.digest]));
    const config = {
      rootfs: { type: "layers", diff_ids: [desc.annotations![annotationKeys.uncompressed]] },
      history: [
        { created_by: "ENV", empty_layer: true },
        { created: "2026-01-01T00:00:00Z", created_by: "RUN x" },
      ],
      "moby.buildkit.cache.v0": Buffer.from(records).toString("base64"),
    };
    return putJson(
      provider,
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: putJson(provider, config, mediaTypes.ociConfig),
        layers: [{ mediaType: desc.mediaType, digest: provider.put(layer), size: desc.size }],
      },
      mediaTypes.ociManifest,
    );
  });
  const top = putJson(
    provider,
    { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests },
    mediaTypes.ociIndex,
  );
  const chains = new CacheChains();
  await importManifest(top, { provider, chains, ctx: fakeContext().ctx });
  const records = [...chains.records];
  assert.deepEqual(
    records.map((record) => record.digest).sort(),
    [digestOf("amd64"), digestOf("arm64")].sort(),
  );
  const annotations = records[0]!.bestResult!.remote.descriptors[0]!.annotations!;
  assert.equal(annotations["buildkit/description"], "RUN x");
  assert.equal(annotations[annotationKeys.createdAt], "2026-01-01T00:00:00Z");
});

function putJson(provider: MemoryLayers, value: unknown, mediaType: string) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return { mediaType, digest: provider.put(bytes), size: bytes.length };
}

test("hostile manifests", async () => {
  const read = async (
    provider: MemoryLayers,
    top: { mediaType: string; digest: `sha256:${string}`; size: number },
  ) => importManifest(top, { provider, chains: new CacheChains(), ctx: fakeContext().ctx });
  const { provider, top } = await written({});
  await assert.rejects(read(provider, { ...top, size: 5 << 20 }), /too large/);
  await assert.rejects(read(provider, { ...top, size: top.size - 1 }), { code: "data_loss" });
  provider.blobs.set(top.digest, Buffer.from("{}".padEnd(top.size)));
  await assert.rejects(read(provider, top), { code: "data_loss" });
  const nested = new MemoryLayers();
  let index = putJson(
    nested,
    { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] },
    mediaTypes.ociIndex,
  );
  for (let i = 0; i < 6; i++)
    index = putJson(
      nested,
      { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [index] },
      mediaTypes.ociIndex,
    );
  await assert.rejects(read(nested, index), /nested too deeply/);
  const both = putJson(
    nested,
    { schemaVersion: 2, config: index, layers: [], manifests: [] },
    mediaTypes.ociManifest,
  );
  await assert.rejects(read(nested, both), /media-type/);
});

test("registry: there and back; layers are found again by repository", async () => {
  await using registry = await TestRegistry.start();
  const host = fakeHost();
  const { ctx } = fakeContext();
  const attrs = new Map([["ref", `${registry.host}/app/cache`]]);
  const cache = sampleCache(host, layers);
  const response = await registryCache(host).exporter(attrs).send(cache, ctx);
  const { digest } = JSON.parse(response.get("cache.manifest")!);
  assert.equal(registry.repositories.get("app/cache")?.tags.get("latest"), digest);
  const chains = new CacheChains();
  await (await registryCache(host).importer(attrs).open(ctx)).read(chains);
  const again = marshalChains(chains);
  assert.deepEqual(again.config, cache.config);
  const [blob] = again.blobs.values();
  assert.deepEqual((blob!.provider as { remotes: unknown }).remotes, [`${registry.host}/app/cache`]);
  host.stored.clear();
  await host.blobs.ensure(blob!, ctx);
  assert.equal(host.stored.size, 1);
});

test("local: what can't be asked for", async () => {
  const backend = localCache(fakeHost());
  assert.throws(() => backend.exporter(new Map()), /local cache exporter requires dest/);
  assert.throws(() => backend.importer(new Map([["src", "x"]])), /requires explicit digest/);
  assert.throws(() => backend.importer(new Map([["digest", digestOf("x")]])), /requires src/);
  assert.throws(
    () =>
      backend.importer(
        new Map([
          ["src", "x"],
          ["digest", "sha256:../../x"],
        ]),
      ),
    { code: "invalid_argument" },
  );
  const host = fakeHost();
  const exporter = localCache(host).exporter(new Map([["dest", "\u00e9"]]));
  await assert.rejects(exporter.send(sampleCache(host, layers), fakeContext().ctx), /non-printable ASCII/);
});

function backends(failed: unknown[] = []) {
  return createCacheBackends({
    ...fakeHost(),
    refs: {} as RefManager,
    onFailedImport: (error) => failed.push(error),
  });
}

test("exports of a request", () => {
  const resolve = (...entries: [string, Record<string, string>][]) =>
    backends().resolveExports(
      entries.map(([type, attrs]) => ({ type, attrs: new Map(Object.entries(attrs)) })),
      "s",
    );
  const found = resolve(
    ["inline", {}],
    ["registry", { ref: "a", "ignore-error": "true" }],
    ["inline", {}],
    ["local", { dest: "d" }],
  );
  assert.ok(found.inline);
  assert.deepEqual(
    found.exports.map(({ name, ignoreError }) => [name, ignoreError]),
    [
      ["exporting cache to registry", true],
      ["exporting cache to client directory", false],
    ],
  );
  assert.throws(() => resolve(["x", {}]), /^BuildError: unknown cache exporter: "x"$/);
  assert.throws(() => resolve(["registry", {}]), /failed to configure registry cache exporter: missing ref/);
  assert.throws(
    () => resolve(["registry", { ref: "a" }], ["registry", { ref: "a", mode: "max" }]),
    /^BuildError: duplicate cache exports \[registry\]$/,
  );
  assert.throws(
    () => resolve(["registry", { ref: "a", compression: "x" }]),
    /unsupported compression type x/,
  );
  assert.throws(
    () => resolve(["registry", { ref: "a", "image-manifest": "x" }]),
    /failed to parse image-manifest/,
  );
});

test("an import that fails is only noted, and never shows secrets", async () => {
  const failed: unknown[] = [];
  const names: string[] = [];
  const builder = {
    inVertex: async (vertex: { name: string }, fn: (ctx: unknown) => Promise<unknown>) => {
      names.push(vertex.name);
      return await fn(fakeContext().ctx);
    },
  } as unknown as Builder;
  const attrs = new Map([["secret_access_key", "s3cret"]]);
  for (const type of ["s3", "azblob", "gha", "nothing"])
    assert.equal(
      await backends(failed).openImport({ type, attrs }, builder, new AbortController().signal),
      undefined,
    );
  assert.equal(failed.length, 4);
  assert.match(String(failed[3]), /unknown cache importer: nothing/);
  assert.match(names[0]!, /^importing cache manifest from s3:\d+$/);
  assert.doesNotMatch(names.join() + failed.join(), /s3cret/);
});

test("an import that can't be found says which kind could not be configured", async () => {
  await using registry = await TestRegistry.start();
  const failed: unknown[] = [];
  const builder = {
    inVertex: (_vertex: unknown, fn: (ctx: unknown) => Promise<unknown>) => fn(fakeContext().ctx),
  } as unknown as Builder;
  const attrs = new Map([["ref", `${registry.host}/app/none`]]);
  const { signal } = new AbortController();
  assert.equal(await backends(failed).openImport({ type: "registry", attrs }, builder, signal), undefined);
  assert.match(String(failed[0]), /failed to configure registry cache importer: .*not found/);
});

test("an import that nothing needs any more is given up without a word", async () => {
  const failed: unknown[] = [];
  const unneeded = new AbortController();
  const builder = {
    inVertex: (_vertex: unknown, fn: (ctx: unknown) => Promise<unknown>, signal: AbortSignal) =>
      fn({ ...fakeContext().ctx, signal }),
  } as unknown as Builder;
  // a server that accepts and never answers
  await using server = await testServer(() => undefined);
  const attrs = new Map([["ref", `${new URL(server.origin).host}/app/cache`]]);
  const opening = backends(failed).openImport({ type: "registry", attrs }, builder, unneeded.signal);
  setTimeout(() => unneeded.abort(), 20);
  assert.equal(await opening, undefined);
  assert.deepEqual(failed, []);
});

test("a layer of an earlier import waits for imports of its build that are being read", async () => {
  const underway = new ImportsUnderway();
  const { signal } = new AbortController();
  let end: () => void = () => undefined;
  underway.add(["s1", "s2"], new Promise<void>((resolve) => (end = resolve)));
  await underway.settled(["s3"], signal);
  let settled = false;
  const waiting = underway.settled(["s1"], signal).then(() => (settled = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(settled, false);
  end();
  await waiting;
  await underway.settled(["s2"], signal);
});

test("recorded imports are without secrets", () => {
  const entries = [
    { Type: "s3", Attrs: { bucket: "b", secret_access_key: "s3cret", session_token: "s3cret" } },
    { Type: "gha", Attrs: { token: "s3cret", ghtoken: "s3cret", scope: "x" } },
    { Type: "azblob", Attrs: { account_url: "https://a.b/?sig=s3cret", secret_access_key: "s3cret" } },
    { Type: "registry", Attrs: { ref: "a" } },
  ];
  const shown = shownCacheImports(JSON.stringify(entries));
  assert.doesNotMatch(shown, /s3cret/);
  assert.deepEqual(JSON.parse(shown)[3], entries[3]);
  assert.equal(JSON.parse(shown)[0].Attrs.bucket, "b");
  assert.equal(shownCacheImports("{s3cret"), "xxxxx");
});
