import assert from "node:assert/strict";
import { test } from "node:test";
import { errorMessage } from "@kiln/base";
import { CacheChains, marshalChains } from "@kiln/solver/remote-cache";
import { fakeContext } from "../sources/testing/fake-engine.ts";
import { azblobCache } from "./azure/azblob-cache.ts";
import { sharedKey } from "./azure/shared-key.ts";
import type { CacheBackend } from "./cache-backend.ts";
import { ghaCache, indexKey } from "./gha/gha-cache.ts";
import { readObjectConfig } from "./object/object-cache.ts";
import { s3Cache } from "./s3/s3-cache.ts";
import { EMPTY_HASH, signV4 } from "./s3/sigv4.ts";
import {
  type Asked,
  digestOf,
  fakeHost,
  MemoryLayers,
  sampleCache,
  testServer,
} from "./testing/fake-host.ts";

const layers = ["base layer", "top layer"].map((text) => new TextEncoder().encode(text));

/** Exports a cache, imports it again, and reads its layers. */
async function roundTrip(
  backend: CacheBackend,
  host: ReturnType<typeof fakeHost>,
  attrs: Readonly<Record<string, string>>,
): Promise<void> {
  const map = new Map(Object.entries(attrs));
  const { ctx, statuses } = fakeContext();
  const cache = sampleCache(host, layers);
  assert.deepEqual(await backend.exporter(map).send(cache, ctx), new Map());
  const writes = layers.map((layer) => `writing layer ${digestOf(layer)}`);
  assert.deepEqual([...new Set(statuses)].sort(), writes.sort());
  const chains = new CacheChains();
  await (await backend.importer(map).open(ctx)).read(chains);
  const again = marshalChains(chains);
  assert.deepEqual(again.config.records, cache.config.records);
  host.stored.clear();
  for (const blob of again.blobs.values()) await host.blobs.ensure(blob, ctx);
  assert.deepEqual([...host.stored.keys()].sort(), layers.map(digestOf).sort());
  // what is there isn't written again
  statuses.length = 0;
  await backend.exporter(map).send(sampleCache(host, layers), ctx);
  assert.deepEqual(statuses, []);
}

/** Objects by path, as S3 and Azure keep them. */
function objectServer(objects = new Map<string, Buffer>()) {
  return testServer(({ method, url, body }: Asked, res) => {
    const key = decodeURIComponent(url.pathname);
    const found = objects.get(key);
    if (url.searchParams.get("restype") === "container") {
      if (method === "PUT") objects.set(key, Buffer.of());
      res.writeHead(method === "PUT" ? 201 : found ? 200 : 404).end();
    } else if (method === "PUT") {
      objects.set(key, body);
      res.writeHead(201, { etag: '"e"' }).end();
    } else if (found === undefined) {
      res.writeHead(404).end();
    } else {
      const head = { "content-length": found.length, "last-modified": new Date().toUTCString() };
      res.writeHead(200, head).end(method === "HEAD" ? undefined : found);
    }
  });
}

const s3Attrs = (origin: string) => ({
  endpoint_url: origin,
  bucket: "bucket",
  region: "us-east-1",
  access_key_id: "ID",
  secret_access_key: "s3cret",
  use_path_style: "true",
});

test("signature of AWS's own example", () => {
  // docs: Authenticating Requests: Using the Authorization Header (AWS Signature Version 4), GET Object
  const headers = signV4(
    {
      method: "GET",
      url: new URL("https://examplebucket.s3.amazonaws.com/test.txt"),
      headers: { range: "bytes=0-9" },
      bodyHash: EMPTY_HASH,
    },
    { accessKeyId: "AKIAIOSFODNN7EXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" },
    { region: "us-east-1", service: "s3", date: new Date("2013-05-24T00:00:00Z") },
  );
  assert.match(
    headers.authorization!,
    /Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41$/,
  );
});

test("Azure's string to sign covers method, headers, path and query", () => {
  const account = { name: "acc", key: Buffer.from("key") };
  const base = {
    method: "PUT",
    url: new URL("http://h/acc/c/b?comp=block"),
    headers: { "x-ms-date": "d" },
    sizeBytes: 3,
  };
  const signed = sharedKey(base, account);
  assert.match(signed, /^SharedKey acc:[A-Za-z0-9+/]{43}=$/);
  const others = [
    { ...base, method: "GET" },
    { ...base, url: new URL("http://h/acc/c/other?comp=block") },
    { ...base, url: new URL("http://h/acc/c/b?comp=blocklist") },
    { ...base, headers: { "x-ms-date": "e" } },
    { ...base, headers: { "x-ms-date": "d", "if-none-match": "*" } },
    { ...base, sizeBytes: 4 },
  ].map((request) => sharedKey(request, account));
  assert.equal(new Set([signed, ...others]).size, 7);
});

test("s3: there and back, under all names", async () => {
  const objects = new Map<string, Buffer>();
  await using server = await objectServer(objects);
  const host = fakeHost();
  await roundTrip(s3Cache(host), host, { ...s3Attrs(server.origin), prefix: "p/", name: "a;b" });
  const keys = [...objects.keys()].sort();
  assert.deepEqual(
    keys,
    [
      ...layers.map((layer) => `/bucket/p/blobs/${digestOf(layer)}`),
      "/bucket/p/manifests/a",
      "/bucket/p/manifests/b",
    ].sort(),
  );
  const config = JSON.parse(objects.get("/bucket/p/manifests/b")!.toString());
  const [layer] = config.layers;
  assert.deepEqual(Object.keys(layer.annotations), ["mediaType", "diffID", "size", "createdAt"]);
  assert.equal(layer.annotations.createdAt, "2026-01-02T03:04:05.000000006Z");
});

test("azblob: there and back, with key and with a signature in the URL", async () => {
  await using server = await objectServer();
  const host = fakeHost();
  const key = Buffer.from("key").toString("base64");
  await roundTrip(azblobCache(host), host, {
    account_url: `${server.origin}/acc`,
    account_name: "acc",
    secret_access_key: key,
  });
  assert.ok(server.asked.every(({ headers }) => headers.authorization?.startsWith("SharedKey acc:")));
  server.asked.length = 0;
  const shared = fakeHost();
  await roundTrip(azblobCache(shared), shared, { account_url: `${server.origin}/other?sv=1&sig=abc` });
  for (const { url, headers } of server.asked) {
    assert.equal(url.searchParams.get("sig"), "abc");
    assert.equal(headers.authorization, undefined);
  }
});

test("credentials don't follow redirects, and no error shows them", async () => {
  await using other = await testServer((_asked, res) => res.writeHead(200).end("{}"));
  await using server = await testServer((_asked, res) =>
    res.writeHead(307, { location: `${other.origin}/elsewhere` }).end(),
  );
  const host = fakeHost();
  const attempts: [CacheBackend, Record<string, string>][] = [
    [s3Cache(host), s3Attrs(server.origin)],
    [azblobCache(host), { account_url: `${server.origin}/acc?sig=s3cret` }],
    [ghaCache(host), { url_v2: server.origin, token: token({}) }],
  ];
  for (const [backend, attrs] of attempts) {
    const { ctx } = fakeContext();
    await assert.rejects(
      backend
        .importer(new Map(Object.entries(attrs)))
        .open(ctx)
        .then((cache) => cache.read(new CacheChains())),
      (error) => {
        assert.doesNotMatch(errorMessage(error), /s3cret|sig=|c2ln/);
        return true;
      },
    );
  }
  assert.ok(server.asked.length >= 3);
  assert.equal(other.asked.length, 0);
});

test("the service's own words are shown, and transient answers tried again", async () => {
  let failures = 1;
  await using server = await testServer((_asked, res) => {
    if (failures-- > 0) res.writeHead(503, { "retry-after": "0" }).end();
    else res.writeHead(403).end("<Error><Code>AccessDenied</Code><Message>no\u0007pe</Message></Error>");
  });
  const { ctx } = fakeContext();
  const importer = s3Cache(fakeHost()).importer(new Map(Object.entries(s3Attrs(server.origin))));
  await assert.rejects((await importer.open(ctx)).read(new CacheChains()), {
    code: "permission_denied",
    message: `GET ${server.origin}/bucket/manifests/buildkit: 403 Forbidden: AccessDenied: no pe`,
  });
  assert.equal(server.asked.length, 2);
});

function token(claims: Readonly<Record<string, unknown>>): string {
  const scopes = JSON.stringify([
    { Scope: "refs/heads/x", Permission: 3 },
    { Scope: "refs/heads/main", Permission: 1 },
  ]);
  const body = { ac: scopes, exp: 4_000_000_000, nbf: 1000, ...claims };
  return ["{}", JSON.stringify(body), "sig"].map((part) => Buffer.from(part).toString("base64url")).join(".");
}

/** Both versions of GitHub's service. */
function actionsServer() {
  const entries = new Map<string, Buffer>();
  const uploads = new Map<string, { readonly key: string; body: Buffer }>();
  let origin = "";
  const newest = (key: string): string | undefined =>
    [...entries.keys()].reverse().find((known) => known.startsWith(key));
  const started = testServer(({ method, url, body, headers }, res) => {
    const json = (value: unknown, status = 200) =>
      res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
    const name = url.pathname.split("/").at(-1) ?? "";
    const at = (key: string, path: string) => `${origin}/${path}?key=${encodeURIComponent(key)}&sig=x`;
    if (name === "up" || name === "down") {
      assert.equal(headers.authorization, undefined, "the token stays with the service");
      const key = url.searchParams.get("key") ?? "";
      if (name === "down") return void res.writeHead(200).end(entries.get(key));
      uploads.get(key)!.body = body;
      return void res.writeHead(201).end();
    }
    const asked = body.length > 0 && method === "POST" ? JSON.parse(body.toString()) : {};
    if (method === "PATCH") {
      uploads.get(name)!.body = body;
      return void res.writeHead(204).end();
    }
    switch (name) {
      case "CreateCacheEntry":
        if (entries.has(asked.key)) return void json({ code: "already_exists", msg: "x" }, 409);
        uploads.set(asked.key, { key: asked.key, body: Buffer.of() });
        return void json({ ok: true, signed_upload_url: at(asked.key, "up") });
      case "FinalizeCacheEntryUpload":
        entries.set(asked.key, uploads.get(asked.key)!.body);
        return void json({ ok: asked.size_bytes === entries.get(asked.key)!.length, entry_id: "1" });
      case "GetCacheEntryDownloadURL": {
        const key = newest(asked.key);
        return void json(
          key === undefined
            ? { ok: false }
            : { ok: true, matched_key: key, signed_download_url: at(key, "down") },
        );
      }
      case "cache": {
        const key = newest(url.searchParams.get("keys") ?? "");
        return void (key === undefined
          ? res.writeHead(204).end()
          : json({ cacheKey: key, archiveLocation: at(key, "down") }));
      }
      case "caches": {
        if (entries.has(asked.key)) return void json({ message: "x" }, 409);
        const id = String(uploads.size + 1);
        uploads.set(id, { key: asked.key, body: Buffer.of() });
        return void json({ cacheId: Number(id) }, 201);
      }
      default: {
        const { key, body: sent } = uploads.get(name)!;
        entries.set(key, sent);
        res.writeHead(204).end();
      }
    }
  });
  return started.then((server) => {
    origin = server.origin;
    return { server, entries };
  });
}

for (const [version, attr] of [
  ["1", "url"],
  ["2", "url_v2"],
] as const) {
  test(`gha: there and back with version ${version}`, async () => {
    const { server, entries } = await actionsServer();
    await using _server = server;
    const host = fakeHost();
    await roundTrip(ghaCache(host), host, { [attr]: server.origin, token: token({}), scope: "s" });
    const index = indexKey("refs/heads/x", "s");
    assert.deepEqual(
      [...entries.keys()].sort(),
      [...layers.map((layer) => `buildkit-blob-1-${digestOf(layer)}`), `${index}#1`, `${index}#2`].sort(),
    );
  });
}

test("gha: tokens that can't be used", () => {
  const make = (text: string) => () =>
    ghaCache(fakeHost()).exporter(
      new Map([
        ["token", text],
        ["url", "http://localhost/"],
      ]),
    );
  assert.throws(make("x"), /invalid number of segments/);
  assert.throws(
    make(`x.${Buffer.from("secret").toString("base64url")}.y`),
    /^BuildError: token could not be decoded$/,
  );
  assert.throws(make(token({ exp: 5 })), /cache token expired at 1970-01-01T00:00:05/);
  assert.throws(make(token({ nbf: 4e9 })), /future issue time/);
  assert.throws(make(token({ ac: 5 })), /without access controls/);
  assert.throws(make(token({ ac: '[{"Scope":1}]' })), /failed to parse token access controls/);
  assert.throws(() => ghaCache(fakeHost()).exporter(new Map([["token", token({})]])), /url not set/);
  assert.throws(() => ghaCache(fakeHost()).exporter(new Map()), /token not set/);
});

test("attributes that can't be taken", () => {
  const make = (backend: CacheBackend, attrs: Record<string, string>) => () =>
    backend.exporter(new Map(Object.entries(attrs)));
  const s3 = s3Cache(fakeHost());
  const good = { bucket: "b1", region: "r" };
  assert.throws(make(s3, { region: "r" }), /bucket \(\$AWS_BUCKET\) not set for s3 cache/);
  assert.throws(make(s3, { bucket: "b1" }), /region \(\$AWS_REGION\) not set for s3 cache/);
  assert.throws(
    make(s3, { ...good, upload_parallelism: "0" }),
    /upload_parallelism must be a positive integer/,
  );
  assert.throws(
    make(s3, { ...good, retry_max_attempts: "-1" }),
    /retry_max_attempts must be a positive integer/,
  );
  assert.throws(make(s3, { ...good, retry_mode: "x" }), /retry_mode must be "standard" or "adaptive"/);
  assert.throws(make(s3, { ...good, endpoint_url: "ftp://x" }), /no http\(s\) URL/);
  assert.throws(make(s3, { bucket: "evil.example/", region: "r" }), /invalid bucket/);
  assert.throws(make(s3, { bucket: "b1", region: "evil.example/" }), /invalid region/);
  make(s3, { ...good, touch_refresh: "x", use_path_style: "x" })();
  make(s3Cache(fakeHost({ AWS_BUCKET: "b1", AWS_REGION: "r" })), {})();
  const azure = azblobCache(fakeHost());
  assert.throws(make(azure, {}), /failed to create azblob config: either .* is required/);
  assert.throws(make(azure, { account_url: "x" }), /not a valid url/);
  assert.throws(make(azure, { account_url: "http://a.b", container: "../x" }), /invalid container/);
});

test("hostile configs", () => {
  const digest = digestOf("x");
  const annotations = { mediaType: "m", diffID: digest, size: 1, createdAt: "2026-01-01T00:00:00Z" };
  const cases: [unknown, RegExp][] = [
    [{ layers: [{ blob: digest }] }, /missing annotations/],
    [{ layers: [{ blob: digest, annotations: { createdAt: "" } }] }, /missing diffid/],
    [{ layers: [{ blob: "../../etc/passwd", annotations }] }, /layer of a cache/],
    [{ layers: [{ blob: "sha256:../../../../x", annotations }] }, /layer of a cache/],
    [{ layers: [{ blob: digest, annotations: { ...annotations, size: -1 } }] }, /size is negative/],
    [{ layers: [{ blob: digest, annotations: { ...annotations, size: 0 } }] }, /missing size/],
    [{ records: [{ digest, inputs: [[{ link: 0 }]] }] }, /looping record/],
    [{ records: [{ digest, inputs: [[{ link: 7 }]] }] }, /invalid record ID: 7/],
    [
      {
        layers: [{ blob: digest, annotations }],
        records: [{ digest, layers: [{ layer: 0, createdAt: annotations.createdAt }] }],
      },
      /looping layer/,
    ],
    [{ records: Array.from({ length: 200_001 }, () => ({})) }, /more than 200000/],
    ["[]", /invalid cache config/],
  ];
  for (const [config, expected] of cases) {
    const bytes = new TextEncoder().encode(JSON.stringify(config));
    assert.throws(() => readObjectConfig(bytes, new MemoryLayers(), new CacheChains()), expected);
  }
});
