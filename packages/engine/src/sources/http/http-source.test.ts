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
