import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { type Descriptor, type Digest, mediaTypes, parseReference, sha256 } from "@kiln/oci";
import {
  anonymous,
  fixedCredentials,
  isAllowedAddress,
  mountCandidates,
  proxyForUrl,
  Registries,
} from "./index.ts";
import { TestRegistry } from "./testing/index.ts";
import { normalizeScopes, parseChallenges } from "./token-auth.ts";

const limits = { retryDelayMs: 5, maxRetryDelayMs: 50, idleTimeoutMs: 200, maxAttempts: 4 };

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function image(registry: TestRegistry, repository: string, layer: Uint8Array, tag?: string) {
  const config = registry.addBlob(repository, "{}", mediaTypes.ociConfig);
  const blob = registry.addBlob(repository, layer, mediaTypes.ociLayerGzip);
  const manifest = registry.addManifest(
    repository,
    { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [blob] },
    mediaTypes.ociManifest,
    tag,
  );
  return { manifest, blob };
}

test("resolve and pull, anonymous", async () => {
  await using registry = await TestRegistry.start();
  using registries = new Registries({ limits });
  const layer = randomBytes(300_000);
  const { manifest, blob } = image(registry, "a/b", layer, "v1");
  const client = registries.client();
  const ref = parseReference(`${registry.host}/a/b:v1`);
  const desc = await client.resolve(ref);
  assert.deepEqual(desc, manifest);
  assert.equal((await client.fetchManifest(ref, desc)).length, manifest.size);
  assert.ok(layer.equals(await collect(client.fetchBlob(ref, blob))));
  assert.ok(
    layer.subarray(10, 30).equals(await collect(client.fetchBlob(ref, blob, { offset: 10, length: 20 }))),
  );
  await assert.rejects(client.resolve(parseReference(`${registry.host}/a/b:nope`)), {
    code: "not_found",
    message: `${registry.host}/a/b:nope: not found`,
  });
  registry.faults.push({ match: ({ method }) => method === "HEAD", times: 1, action: { kind: "noDigest" } });
  assert.deepEqual(await client.resolve(ref), manifest);
});

test("Basic, token by GET, by POST, identity tokens; credentials come late and once", async () => {
  for (const auth of [
    { kind: "basic", username: "u", password: "p" },
    { kind: "token", username: "u", password: "p" },
    { kind: "token", username: "u", password: "p", getStatus: 401 },
    { kind: "token", username: "u2", password: "p2", refreshToken: "r", getStatus: 404 },
  ] as const) {
    await using registry = await TestRegistry.start({ auth });
    using registries = new Registries({ limits });
    image(registry, "a", randomBytes(10), "v1");
    const secret = "refreshToken" in auth ? { username: "", secret: "r" } : { username: "u", secret: "p" };
    const client = registries.client(fixedCredentials({ [registry.host]: secret }));
    const ref = parseReference(`${registry.host}/a:v1`);
    await client.resolve(ref);
    await client.resolve(ref);
    assert.equal(registry.seen("HEAD", /manifests/).length, 3, auth.kind);
    await assert.rejects(registries.client().resolve(ref), { code: "unauthenticated" });
    const wrong = registries.client(fixedCredentials({ [registry.host]: { username: "u", secret: "x" } }));
    await assert.rejects(
      wrong.resolve(ref),
      (error: Error) => !error.message.includes("x:") && /401|incorrect/.test(error.message),
    );
  }
});

test("a token server that is busy, breaks or stalls is asked again, within a bound", async () => {
  for (const secret of [
    { username: "u", secret: "p" },
    { username: "", secret: "r" },
  ]) {
    const auth = { kind: "token", username: "u", password: "p", refreshToken: "r" } as const;
    await using registry = await TestRegistry.start({ auth });
    using registries = new Registries({ limits });
    image(registry, "a", randomBytes(10), "v1");
    const client = registries.client(fixedCredentials({ [registry.host]: secret }));
    const ref = parseReference(`${registry.host}/a:v1`);
    const match = ({ path }: { path: string }): boolean => path === "/token";
    registry.faults.push(
      { match, times: 1, action: { kind: "status", status: 429, headers: { "retry-after": "0" } } },
      { match, times: 1, action: { kind: "reset" } },
    );
    await client.resolve(ref);
    assert.ok(registry.faults.every((fault) => fault.times === 0));
    registry.faults.push({ match, times: 999, action: { kind: "status", status: 503 } });
    const fresh = new Registries({ limits });
    try {
      const other = fresh.client(fixedCredentials({ [registry.host]: secret }));
      await assert.rejects(other.resolve(ref), /failed to authorize.*503/s);
      assert.ok(registry.seen("GET", /token/).length + registry.seen("POST", /token/).length < 40);
    } finally {
      fresh[Symbol.dispose]();
    }
  }
});

test("no access: the text that people know", async () => {
  await using registry = await TestRegistry.start({ auth: { kind: "token", denied: ["secret"] } });
  using registries = new Registries({ limits });
  const ref = parseReference(`${registry.host}/secret:v1`);
  await assert.rejects(registries.client().resolve(ref), {
    code: "unauthenticated",
    message:
      "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
  });
  const desc: Descriptor = { mediaType: mediaTypes.ociManifest, digest: `sha256:${"0".repeat(64)}`, size: 2 };
  await assert.rejects(registries.client().pushManifest(ref, desc, Buffer.from("{}")), /push access denied/);
});

test("downloads survive truncation, stalls, resets, 429 and 5xx, also without ranges", async () => {
  await using registry = await TestRegistry.start();
  using registries = new Registries({ limits });
  const layer = randomBytes(500_000);
  const { blob } = image(registry, "a", layer);
  const client = registries.client();
  const ref = parseReference(`${registry.host}/a`);
  const match = ({ path }: { path: string }): boolean => path.includes("/blobs/");
  registry.faults.push(
    { match, times: 1, action: { kind: "status", status: 429, headers: { "retry-after": "0" } } },
    { match, times: 2, action: { kind: "truncate", afterBytes: 100_000 } },
    { match, times: 1, action: { kind: "stall", afterBytes: 50_000 } },
    { match, times: 1, action: { kind: "reset" } },
    { match, times: 1, action: { kind: "status", status: 503 } },
    { match, times: 1, action: { kind: "noRange" } },
  );
  const progress: number[] = [];
  assert.ok(
    layer.equals(await collect(client.fetchBlob(ref, blob, { onProgress: (n) => progress.push(n) }))),
  );
  assert.equal(progress.at(-1), layer.length);
  assert.ok(registry.faults.every((fault) => fault.times === 0));
  registry.faults.push({
    match,
    times: 99,
    action: { kind: "status", status: 500, body: '{"errors":[{"code":"UNKNOWN","message":"boom"}]}' },
  });
  await assert.rejects(collect(client.fetchBlob(ref, blob)), (error: Error) => {
    return /unexpected status from GET request to .*: 500 Internal Server Error\nunknown: boom$/.test(
      error.message,
    );
  });
});

test("wrong bytes are never accepted", async () => {
  await using registry = await TestRegistry.start();
  using registries = new Registries({ limits });
  const { blob, manifest } = image(registry, "a", randomBytes(1000), "v1");
  const client = registries.client();
  const ref = parseReference(`${registry.host}/a:v1`);
  const match = ({ method }: { method: string }): boolean => method === "GET";
  registry.faults.push({ match, times: 1, action: { kind: "corrupt" } });
  await assert.rejects(collect(client.fetchBlob(ref, blob)), { code: "data_loss" });
  registry.faults.push({ match, times: 1, action: { kind: "corrupt" } });
  await assert.rejects(client.fetchManifest(ref, manifest), { code: "data_loss" });
  await assert.rejects(collect(client.fetchBlob(ref, { ...blob, size: blob.size - 1 })), {
    code: "data_loss",
  });
  const huge: Descriptor = { ...manifest, size: 5 * 1024 * 1024 };
  await assert.rejects(client.fetchManifest(ref, huge), /rejecting 5242880 byte manifest/);
});

test("an endless manifest is cut off (V32)", async () => {
  const server = createServer((req, res) => {
    res.writeHead(200, { "content-type": mediaTypes.ociManifest });
    if (req.method === "HEAD") return res.end();
    const timer = setInterval(() => res.write(Buffer.alloc(1024 * 1024)), 1);
    res.on("close", () => clearInterval(timer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  using registries = new Registries({ limits });
  const ref = parseReference(`127.0.0.1:${(server.address() as AddressInfo).port}/a:b`);
  await assert.rejects(registries.client().resolve(ref), { code: "resource_exhausted" });
  server.closeAllConnections();
  server.close();
});

test("credentials don't follow a redirect to another host (V33)", async () => {
  await using storage = await TestRegistry.start();
  await using registry = await TestRegistry.start({
    auth: { kind: "basic", username: "u", password: "p" },
    redirectBlobsTo: storage.origin,
  });
  using registries = new Registries({ limits });
  const layer = randomBytes(100);
  const blob = storage.addBlob("a", layer, mediaTypes.ociLayer);
  registry.addBlob("a", layer, mediaTypes.ociLayer);
  const client = registries.client(fixedCredentials({ [registry.host]: { username: "u", secret: "p" } }));
  assert.ok(layer.equals(await collect(client.fetchBlob(parseReference(`${registry.host}/a`), blob))));
  assert.ok(storage.requests.length > 0);
  assert.ok(storage.requests.every((request) => request.headers.authorization === undefined));
  await using evil = await TestRegistry.start({ redirectBlobsTo: "http://169.254.169.254" });
  const other = evil.addBlob("a", layer, mediaTypes.ociLayer);
  await assert.rejects(collect(client.fetchBlob(parseReference(`${evil.host}/a`), other)), {
    code: "permission_denied",
  });
});

test("mirrors first, with a path, and the registry after them", async () => {
  await using mirror = await TestRegistry.start();
  await using registry = await TestRegistry.start();
  const layer = randomBytes(100);
  image(mirror, "hub/lib", layer, "v1");
  const { manifest } = image(registry, "lib", randomBytes(50), "v2");
  using registries = new Registries({
    limits,
    hosts: new Map([[registry.host, { mirrors: [`${mirror.host}/hub`] }]]),
  });
  const client = registries.client();
  await client.resolve(parseReference(`${registry.host}/lib:v1`));
  assert.equal(registry.requests.length, 0);
  assert.match(
    mirror.requests[0]!.path,
    new RegExp(`^/v2/hub/lib/manifests/v1\\?ns=${encodeURIComponent(registry.host)}$`),
  );
  assert.deepEqual(await client.resolve(parseReference(`${registry.host}/lib:v2`)), manifest);
  await client.pushManifest(
    parseReference(`${registry.host}/lib:v3`),
    manifest,
    registry.manifests.get(manifest.digest)!.body,
  );
  assert.equal(mirror.seen("PUT", /./).length, 0);
});

test("push: existing, mounted, whole, in pieces, and after failures", async () => {
  await using registry = await TestRegistry.start({ auth: { kind: "token", username: "u", password: "p" } });
  using registries = new Registries({ limits });
  const client = registries.client(fixedCredentials({ [registry.host]: { username: "u", secret: "p" } }));
  const ref = parseReference(`${registry.host}/new/app:v1`);
  const body = randomBytes(200_000);
  const desc = registry.addBlob("old/base", body, mediaTypes.ociLayerGzip);
  const source = (bytes: Buffer) => ({
    async *read({ offset, length }: { offset: number; length?: number }) {
      for (let at = offset; at < offset + (length ?? bytes.length); at += 10_000) {
        yield bytes.subarray(at, Math.min(at + 10_000, offset + (length ?? bytes.length)));
      }
    },
  });
  const labels = new Map([[`containerd.io/distribution.source.${registry.host}`, "x/y,old/base"]]);
  assert.deepEqual(mountCandidates(ref, labels), ["x/y", "old/base"]);
  assert.equal(await client.pushBlob(ref, desc, source(body), { mountFrom: ["old/base"] }), "mounted");
  assert.equal(await client.pushBlob(ref, desc, source(body)), "exists");
  const second = randomBytes(100_000);
  const digestOf = (bytes: Buffer): Digest => sha256(bytes);
  const desc2: Descriptor = {
    mediaType: mediaTypes.ociLayerGzip,
    digest: digestOf(second),
    size: second.length,
  };
  registry.faults.push(
    { match: ({ method }) => method === "PUT", times: 1, action: { kind: "status", status: 502 } },
    { match: ({ method }) => method === "PUT", times: 1, action: { kind: "reset" } },
  );
  let sent = 0;
  assert.equal(
    await client.pushBlob(ref, desc2, source(second), { onProgress: (n) => (sent = n) }),
    "pushed",
  );
  assert.equal(sent, second.length);
  assert.ok(second.equals(registry.blobs.get(desc2.digest)!));
  const third = randomBytes(90_000);
  const desc3: Descriptor = {
    mediaType: mediaTypes.ociLayerGzip,
    digest: digestOf(third),
    size: third.length,
  };
  registry.faults.push({
    match: ({ method }) => method === "PATCH",
    times: 1,
    action: { kind: "status", status: 500 },
  });
  assert.equal(await client.pushBlob(ref, desc3, source(third), { chunkBytes: 40_000 }), "pushed");
  assert.ok(third.equals(registry.blobs.get(desc3.digest)!));
  await assert.rejects(
    client.pushBlob(ref, { ...desc3, digest: `sha256:${"1".repeat(64)}` }, source(third)),
    /digest invalid: digest mismatch/,
  );
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config: desc2, layers: [desc, desc3] }));
  const mdesc: Descriptor = {
    mediaType: mediaTypes.ociManifest,
    digest: digestOf(manifest),
    size: manifest.length,
  };
  assert.equal(await client.pushManifest(ref, mdesc, manifest), "pushed");
  assert.equal(await client.pushManifest(ref, mdesc, manifest), "exists");
  assert.deepEqual(await client.resolve(ref), mdesc);
});

test("at most so many connections, and a push that reads from the same registry doesn't wait for itself", async () => {
  await using registry = await TestRegistry.start();
  using registries = new Registries({ limits, maxConcurrency: 1 });
  const client = registries.client();
  const layer = randomBytes(50_000);
  const desc = registry.addBlob("from", layer, mediaTypes.ociLayer);
  const from = parseReference(`${registry.host}/from`);
  const to = parseReference(`${registry.host}/to`);
  const read = ({ offset }: { offset: number }): AsyncIterable<Uint8Array> =>
    client.fetchBlob(from, desc, { offset });
  assert.equal(await client.pushBlob(to, desc, { read }), "pushed");
});

test("errors name what failed", async () => {
  using registries = new Registries({ limits: { ...limits, maxAttempts: 1 } });
  await assert.rejects(registries.client(anonymous).resolve(parseReference("127.0.0.1:1/a:b")), {
    code: "unavailable",
    message:
      'failed to do request: Head "http://127.0.0.1:1/v2/a/manifests/b": dial tcp 127.0.0.1:1: connect: connection refused',
  });
});

test("challenges, scopes, proxies, addresses", () => {
  const [bearer, basic] = parseChallenges(
    'Basic realm="x, y", Bearer realm="https://a/t",service=s,scope="r:a:pull,push"',
  );
  assert.equal(bearer?.scheme, "bearer");
  assert.equal(bearer?.params.get("scope"), "r:a:pull,push");
  assert.equal(basic?.params.get("realm"), "x, y");
  assert.deepEqual(normalizeScopes(["repository:b:push", "repository:a:pull", "repository:b:pull,push"]), [
    "repository:a:pull",
    "repository:b:pull,push",
  ]);
  const env = { HTTPS_PROXY: "proxy:3128", NO_PROXY: "internal,.corp,10.0.0.0/8,exact:8443" };
  const proxied = (url: string): boolean => proxyForUrl(new URL(url), env) !== undefined;
  assert.ok(proxied("https://example.com/"));
  for (const url of [
    "https://a.internal/",
    "https://x.corp/",
    "https://10.1.2.3/",
    "https://exact:8443/",
    "https://localhost/",
    "http://example.com/",
  ]) {
    assert.ok(!proxied(url), url);
  }
  assert.ok(proxied("https://corp/") && proxied("https://exact/"));
  assert.ok(!isAllowedAddress("169.254.169.254", "noLinkLocal"));
  assert.ok(!isAllowedAddress("::ffff:169.254.169.254", "noLinkLocal"));
  assert.ok(isAllowedAddress("127.0.0.1", "noLinkLocal") && !isAllowedAddress("127.0.0.1", "publicOnly"));
});
