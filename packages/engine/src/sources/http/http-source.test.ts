import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { FakeRefs, fakeContext, fakeSessions } from "../testing/fake-engine.ts";
import { dispositionName, downloadName } from "./file-name.ts";
import { HttpSource } from "./http-source.ts";

const sha = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;

async function serve(handler: (req: IncomingMessage, res: ServerResponse) => void) {
  const requests: IncomingMessage[] = [];
  const server = createServer((req, res) => {
    requests.push(req);
    handler(req, res);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function source(has: Parameters<typeof fakeSessions>[0] = {}) {
  const fakes = new FakeRefs();
  const http = new HttpSource({
    refs: fakes.manager,
    sessions: fakeSessions(has),
    userAgent: "buildkit/v0.33",
    patience: { idleTimeoutMs: 200, maxAttempts: 4, retryDelayMs: 5, maxRetryDelayMs: 50 },
  });
  return { fakes, http };
}

test("download, key, name, times; ETag saves the second download", async () => {
  await using server = await serve((req, res) => {
    const headers = {
      etag: 'W/"e1"',
      "last-modified": "Sat, 02 Jan 2021 03:04:05 GMT",
      "content-disposition": 'attachment; filename="a b.txt"',
    };
    if (req.headers["if-none-match"] === '"e1"') return res.writeHead(304, headers).end();
    res.writeHead(200, headers).end("hello");
  });
  const { fakes, http } = source();
  using _fakes = fakes;
  const first = fakeContext();
  const request = {
    identifier: `${server.url}/x/file.tar?q=1`,
    attrs: new Map([["http.perm", "0644"]]),
    platform: undefined,
  };
  const instance = http.resolve(request);
  const key = await instance.cacheKey(0, first.ctx);
  const text = `{"Filename":"a b.txt","Perm":420,"UID":0,"GID":0,"Checksum":"${sha("hello")}","LastModTime":"Sat, 02 Jan 2021 03:04:05 GMT"}`;
  assert.deepEqual(key, { key: sha(text), pin: sha("hello"), done: true });
  const ref = await instance.snapshot(first.ctx);
  const path = join(fakes.dir(ref), "a b.txt");
  assert.equal(readFileSync(path, "utf8"), "hello");
  assert.equal(statSync(path).mtimeMs, Date.UTC(2021, 0, 2, 3, 4, 5));
  assert.equal(statSync(path).mode & 0o777, 0o644);
  assert.equal(server.requests.length, 1);
  const second = fakeContext();
  assert.deepEqual(await http.resolve(request).cacheKey(0, second.ctx), key);
  assert.equal(server.requests.length, 2);
  assert.equal(server.requests[1]?.method, "HEAD");
  await ref?.release();
  await first.finish();
  await second.finish();
  assert.equal(fakes.held, 0);
  http[Symbol.dispose]();
});

test("checksums, statuses, packed bodies, redirects", async () => {
  await using server = await serve((req, res) => {
    if (req.url === "/gzip")
      return res.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync("packed"));
    if (req.url === "/evil")
      return res.writeHead(302, { location: "http://169.254.169.254/latest/meta-data" }).end();
    if (req.url === "/file") return res.writeHead(302, { location: "file:///etc/passwd" }).end();
    if (req.url === "/moved") return res.writeHead(301, { location: "/ok" }).end();
    if (req.url === "/missing") return res.writeHead(404).end("nope");
    res.writeHead(200).end("ok");
  });
  const { fakes, http } = source();
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const resolve = (path: string, attrs: Record<string, string> = {}) =>
    http.resolve({
      identifier: server.url + path,
      attrs: new Map(Object.entries(attrs)),
      platform: undefined,
    });
  assert.equal((await resolve("/gzip").cacheKey(0, ctx)).pin, sha("packed"));
  assert.equal((await resolve("/moved").cacheKey(0, ctx)).pin, sha("ok"));
  await assert.rejects(resolve("/missing").cacheKey(0, ctx), { message: "invalid response status 404" });
  await assert.rejects(resolve("/evil").cacheKey(0, ctx), { code: "permission_denied" });
  await assert.rejects(resolve("/file").cacheKey(0, ctx), { code: "permission_denied" });
  const before = server.requests.length;
  const pinned = resolve("/ok", { "http.checksum": sha("other") });
  assert.equal((await pinned.cacheKey(0, ctx)).pin, sha("other"));
  assert.equal(server.requests.length, before, "a checksum needs no request");
  await assert.rejects(pinned.snapshot(ctx), { message: `digest mismatch ${sha("ok")}: ${sha("other")}` });
  await assert.rejects(
    http
      .resolve({ identifier: "http://169.254.169.254/x", attrs: new Map(), platform: undefined })
      .cacheKey(0, ctx),
    { code: "permission_denied" },
  );
  http[Symbol.dispose]();
});

test("secrets, own headers, uploads", async () => {
  await using other = await serve((_req, res) => res.writeHead(200).end("other"));
  await using server = await serve((req, res) => {
    if (req.url === "/away") return res.writeHead(302, { location: other.url }).end();
    res
      .writeHead(200)
      .end(`${req.headers.authorization} ${req.headers["user-agent"]} ${req.headers.accept ?? "-"}`);
  });
  const { fakes, http } = source({
    secrets: { "HTTP_AUTH_TOKEN_127.0.0.1": "tok", mine: "Basic abc" },
    uploads: { "/ctx": "uploaded" },
  });
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const body = async (identifier: string, attrs: Record<string, string> = {}): Promise<string> => {
    const instance = http.resolve({ identifier, attrs: new Map(Object.entries(attrs)), platform: undefined });
    const dir = fakes.dir(await instance.snapshot(ctx));
    return readFileSync(join(dir, readdirSync(dir)[0]!), "utf8");
  };
  assert.equal(await body(`${server.url}/a`), "Bearer tok buildkit/v0.33 -");
  const attrs = {
    "http.authheadersecret": "mine",
    "http.header.user-agent": "me",
    "http.header.accept": "x/y",
    "http.header.cookie": "no",
  };
  assert.equal(await body(`${server.url}/a`, attrs), "Basic abc me x/y");
  assert.equal(await body("http://buildkit-session/ctx"), "uploaded");
  assert.equal(await body(`${server.url}/away`), "other");
  assert.equal(other.requests[0]?.headers.authorization, undefined);
  await assert.rejects(
    body(`${server.url}/a`, { "http.authheadersecret": "none" }),
    /failed to retrieve HTTP auth secret none/,
  );
  http[Symbol.dispose]();
});

test("stalls, breaks, 429 and 5xx: tried again, and gone on from where it was, within a bound", async () => {
  const data = Buffer.from(Array.from({ length: 30_000 }, (_, i) => `line ${i}\n`).join(""));
  let tries = 0;
  const asked: (string | undefined)[] = [];
  await using server = await serve((req, res) => {
    tries++;
    asked.push(req.headers.range);
    const headers = { etag: '"e1"', "content-length": String(data.length) };
    const from = Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? "")?.[1] ?? 0);
    const range = {
      ...headers,
      "content-length": String(data.length - from),
      "content-range": `bytes ${from}-${data.length - 1}/${data.length}`,
    };
    switch (req.url) {
      case "/busy":
        if (tries === 1) return res.writeHead(429, { "retry-after": "0" }).end();
        if (tries < 4) return res.writeHead(503).end();
        return res.writeHead(200).end("at last");
      case "/always-busy":
        return res.writeHead(500).end();
      case "/endless-wait":
        return res.writeHead(429, { "retry-after": "86400" }).end();
      case "/stalls":
        // Half of what is left, and then nothing.
        if (tries < 4)
          return from === 0
            ? res.writeHead(200, headers).write(data.subarray(0, data.length >> 1))
            : res.writeHead(206, range).write(data.subarray(from, (from + data.length) >> 1));
        return res.writeHead(206, range).end(data.subarray(from));
      case "/no-ranges":
        res.writeHead(200, { "content-length": String(data.length) });
        if (tries > 2) return res.end(data);
        return res.write(data.subarray(0, 1000 * tries), () => res.destroy());
      case "/changes":
        res.writeHead(200, { "content-length": String(data.length) });
        if (tries > 1) return res.end(data.map((byte) => byte ^ 1));
        return res.write(data.subarray(0, 1000), () => res.destroy());
      case "/stalls-always":
        return res.writeHead(200, headers).write(tries === 1 ? data.subarray(0, 10) : "");
      default:
        return res.writeHead(404).end();
    }
  });
  const { fakes, http } = source();
  using _fakes = fakes;
  const { ctx, finish } = fakeContext();
  const load = async (path: string): Promise<string> => {
    tries = 0;
    asked.length = 0;
    const identifier = `${server.url}${path}`;
    return (await http.resolve({ identifier, attrs: new Map(), platform: undefined }).cacheKey(0, ctx)).pin;
  };
  assert.equal(await load("/busy"), sha("at last"));
  await assert.rejects(load("/always-busy"), { message: "invalid response status 500" });
  assert.equal(tries, 4);
  await assert.rejects(load("/endless-wait"), { message: "invalid response status 429" });
  assert.equal(await load("/stalls"), sha(data.toString()));
  assert.match(asked.slice(1).join(), /^bytes=\d+-,bytes=\d+-,bytes=\d+-$/);
  assert.equal(await load("/no-ranges"), sha(data.toString()));
  assert.deepEqual(asked, [undefined, undefined, undefined]);
  await assert.rejects(load("/changes"), /changed on the server during its download/);
  await assert.rejects(load("/stalls-always"), /no data received for 200 ms|unhandled|too early/);
  assert.ok(tries <= 5, `${tries} tries`);
  await finish();
  http[Symbol.dispose]();
});

test("names", () => {
  const name = (path: string, wanted = "", header?: string): string =>
    downloadName(new URL(`http://h${path}`), wanted, header);
  assert.equal(name("/a/b.txt"), "b.txt");
  assert.equal(name("/a/b%20c"), "b c");
  assert.equal(name("/a%2f..%2f"), "download");
  assert.equal(name("/"), "download");
  assert.equal(name("/x", "../y"), "y");
  assert.equal(name("/x", "", 'attachment; filename="../../evil"'), "evil");
  assert.equal(name("/x", "", 'attachment; filename="dir/"'), "x");
  assert.equal(dispositionName("attachment; filename*=UTF-8''%e2%82%ac.txt"), "€.txt");
  assert.equal(dispositionName('inline; filename="a\\"b"; size=1'), 'a"b');
  assert.equal(dispositionName("inline"), undefined);
});
