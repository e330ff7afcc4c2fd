import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createNetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { Control } from "@kiln/api/control";
import { PolicyAction } from "@kiln/api/sourcepolicy";
import { isBuildError, sleep } from "@kiln/base";
import { Channel, duplexPair, Metadata, Router } from "@kiln/grpc";
import { SshReader, sshStrings } from "./client/ssh-key.ts";
import { sourceOfDir } from "./fsutil/index.ts";
import {
  type Attachable,
  AuthProvider,
  asRoot,
  type ClientSession,
  ContentProvider,
  checkPolicy,
  checkSshAgent,
  contentOf,
  DirBlobStore,
  ExporterProvider,
  FileSendTarget,
  FileSyncProvider,
  finalizeExport,
  findExporters,
  getSecret,
  mountSshSocket,
  openFileWriter,
  openSession,
  PolicyProvider,
  pullUpload,
  SecretsProvider,
  SessionAuth,
  type SessionCaller,
  SessionManager,
  SshProvider,
  sendDirectory,
  syncDirectory,
  UploadProvider,
} from "./index.ts";

let dir: string;
let sessions: SessionManager;
let router: Router;
let control: Channel;
let open: ClientSession[];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "kiln-session-"));
  sessions = new SessionManager();
  open = [];
  router = new Router().add(Control, { session: (call, ctx) => sessions.serve(call, ctx) });
  const [a, b] = duplexPair();
  router.accept(b);
  control = Channel.over(a);
});
afterEach(async () => {
  for (const s of open) await s.close();
  await control.close({ force: true });
  await router.close({ timeoutMs: 100 });
  rmSync(dir, { recursive: true, force: true });
});

async function start(attachables: Attachable[], sharedKey = ""): Promise<SessionCaller> {
  const session = await openSession(control, attachables, { sharedKey });
  open.push(session);
  return sessions.get(session.id, { signal: AbortSignal.timeout(5000) });
}

const path = (name: string): string => join(dir, name);
function folder(name: string, files: Record<string, string>): string {
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(path(name), file, ".."), { recursive: true });
    writeFileSync(join(path(name), file), text);
  }
  mkdirSync(path(name), { recursive: true });
  return path(name);
}

describe("the tunnel", () => {
  test("shared key, methods, close", async () => {
    const caller = await start([new SecretsProvider(() => undefined)], "schlüssel");
    assert.equal(caller.sharedKey, "schlüssel");
    assert.ok(caller.supports("/moby.buildkit.secrets.v1.secrets/getsecret"));
    assert.ok(!caller.supports("/moby.filesync.v1.FileSync/diffcopy"));
    assert.equal((await sessions.get(`prefix:${caller.id}`, { noWait: true }))?.id, caller.id);
    await open[0]?.close();
    await open[0]?.closed;
    await sleep(20);
    assert.ok(caller.signal.aborted);
    assert.equal(await sessions.get(caller.id, { noWait: true }), undefined);
    await assert.rejects(getSecret(caller, "x"), { code: "unavailable" });
  });
  test("a call that runs when the session drops fails at once", async () => {
    const caller = await start([new SecretsProvider(() => new Promise(() => undefined))]);
    const call = getSecret(caller, "x");
    call.catch(() => undefined);
    await sleep(20);
    await open[0]?.close();
    await assert.rejects(call, { code: "unavailable" });
  });
  test("waiting for a session, and giving up", async () => {
    const waiting = sessions.get("later", { signal: AbortSignal.timeout(5000) });
    open.push(await openSession(control, [], { id: "later" }));
    assert.equal((await waiting).id, "later");
    const stop = new AbortController();
    const never = sessions.get("never", { signal: stop.signal });
    stop.abort();
    await assert.rejects(never, { message: /^no active session for never: / });
    await assert.rejects(
      sessions.any([], () => Promise.resolve(1)),
      { message: "no active sessions" },
    );
  });
  test("a client that doesn't answer health checks is dropped", async () => {
    const [a, b] = duplexPair();
    b.resume();
    const metadata = Metadata.from({
      "x-docker-expose-session-uuid": "mute",
      "x-buildkit-session-health-custom-timeout": "1",
    });
    await assert.rejects(sessions.handle(a, metadata), { message: /^session healthcheck failed fatally: / });
    assert.ok(!sessions.has("mute"));
    const nameless = duplexPair()[0];
    await assert.rejects(sessions.handle(nameless, new Metadata()), { code: "invalid_argument" });
  });
  test("any goes on to the next session", async () => {
    const a = await start([]);
    const b = await start([new SecretsProvider((id) => Buffer.from(id))]);
    const value = await sessions.any([a.id, b.id], (caller) => getSecret(caller, "s"));
    assert.equal(Buffer.from(value).toString(), "s");
    await assert.rejects(
      sessions.any([a.id], (c) => getSecret(c, "s")),
      { code: "not_found" },
    );
  });
});

describe("files", () => {
  test("a context comes over, filtered and owned by root; then only what changed", async () => {
    const src = folder("src", { "a.txt": "1", "sub/b.txt": "2", "node_modules/x": "3", ünicode: "4" });
    const caller = await start([new FileSyncProvider(new Map([["context", { dir: src, map: asRoot }]]))]);
    const dest = folder("dest", {});
    await syncDirectory(caller, dest, { name: "context", exclude: ["node_modules", "ü*nix"] });
    assert.deepEqual(readdirSync(dest, { recursive: true }).sort(), ["a.txt", "sub", "sub/b.txt", "ünicode"]);
    writeFileSync(join(src, "a.txt"), "changed");
    const changed: string[] = [];
    await syncDirectory(caller, dest, {
      name: "context",
      exclude: ["node_modules"],
      onChange: (c) => changed.push(c.path),
    });
    assert.deepEqual(changed, ["a.txt"]);
    await syncDirectory(caller, dest, { name: "context", include: ["sub"] });
    assert.deepEqual(readdirSync(dest), ["sub"]);
    await assert.rejects(syncDirectory(caller, dest, { name: "../etc" }), {
      code: "not_found",
      message: 'no access allowed to dir "../etc"',
    });
    const bare = await start([]);
    await assert.rejects(syncDirectory(bare, dest, { name: "context" }), {
      message: "no local sources enabled",
    });
  });
  test("a large file through the tunnel", async () => {
    const data = Buffer.alloc(24 << 20, "kiln");
    const src = folder("src", {});
    writeFileSync(join(src, "big"), data);
    const caller = await start([new FileSyncProvider(new Map([["c", { dir: src }]]))]);
    const dest = folder("dest", {});
    await syncDirectory(caller, dest, { name: "c" });
    assert.ok(readFileSync(join(dest, "big")).equals(data));
  });
  test("exports: copy, delete, file, unwanted file", async () => {
    const src = folder("src", { "x/y": "1", z: "2" });
    const out = folder("out", { old: "keep" });
    const mirror = folder("mirror", { old: "gone" });
    const written: Buffer[] = [];
    let said: Readonly<Record<string, string>> = {};
    const targets = new FileSendTarget([
      [0, { kind: "dir", dir: out }],
      [1, { kind: "dir", dir: mirror, mode: "delete" }],
      [
        2,
        {
          kind: "file",
          open: async (md) => {
            said = md;
            return {
              write: async (d) => void written.push(Buffer.from(d)),
              close: async () => void written.push(Buffer.from("END")),
              abort: async () => undefined,
            };
          },
        },
      ],
      [3, { kind: "file", open: async () => undefined }],
    ]);
    const caller = await start([targets]);
    await sendDirectory(caller, sourceOfDir(src), { exporterId: 0 });
    assert.deepEqual(readdirSync(out).sort(), ["old", "x", "z"]);
    await assert.rejects(sendDirectory(caller, sourceOfDir(src), { exporterId: 1 }), {
      message: /mode=delete requires/,
    });
    await sendDirectory(caller, sourceOfDir(src), { exporterId: 1, multiPlatform: true });
    assert.deepEqual(readdirSync(mirror).sort(), ["x", "z"]);
    const writer = await openFileWriter(caller, {
      exporterId: 2,
      metadata: { "containerimage.digest": "sha256:x" },
    });
    const data = Buffer.alloc(7 << 20, "ab");
    await writer.write(data);
    await writer.close();
    assert.deepEqual(said, { "containerimage.digest": "sha256:x" });
    assert.ok(Buffer.concat(written).equals(Buffer.concat([data, Buffer.from("END")])));
    const unwanted = await openFileWriter(caller, { exporterId: 3 });
    await assert.rejects(unwanted.close(), { code: "already_exists", message: "target already exists" });
    await assert.rejects(sendDirectory(caller, sourceOfDir(src), { exporterId: 9 }), {
      message: "exporter 9 not found",
    });
  });
  test("uploads, each once", async () => {
    const uploads = new UploadProvider();
    const caller = await start([uploads]);
    const url = new URL(
      uploads.add(
        (async function* () {
          yield Buffer.alloc(4 << 20, 1);
          yield Buffer.from("end");
        })(),
      ),
    );
    const parts: Uint8Array[] = [];
    for await (const p of pullUpload(caller, { host: url.host, path: url.pathname })) parts.push(p);
    assert.equal(Buffer.concat(parts).length, (4 << 20) + 3);
    await assert.rejects(
      async () => {
        for await (const _ of pullUpload(caller, { host: url.host, path: url.pathname }));
      },
      { message: /no http response from session/ },
    );
  });
});

describe("small services", () => {
  test("secrets: found, missing, too large; two sessions never mix", async () => {
    const provider = (text: string) =>
      new SecretsProvider((id) =>
        id === "a" ? Buffer.from(text) : id === "big" ? Buffer.alloc(600_000) : undefined,
      );
    const one = await start([provider("one")]);
    const two = await start([provider("two")]);
    const values = await Promise.all([one, two, one, two].map((c) => getSecret(c, "a")));
    assert.deepEqual(
      values.map((v) => Buffer.from(v).toString()),
      ["one", "two", "one", "two"],
    );
    await assert.rejects(getSecret(one, "b"), { code: "not_found", message: "secret b: not found" });
    await assert.rejects(getSecret(one, "big"), { message: "invalid secret size 600000" });
  });
  test("auth: credentials, tokens, key proof", async () => {
    const asked: string[] = [];
    const server = createServer((req, res) => {
      asked.push(`${req.method} ${req.url} ${req.headers.authorization ?? ""}`);
      if (req.method === "POST" && req.url === "/nopost") return void res.writeHead(404).end();
      res.end(JSON.stringify({ token: "T", expires_in: 300, issued_at: "2026-01-01T00:00:00Z" }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const provider = (password: string, seedDir: string) =>
      new AuthProvider({
        seedDir,
        login: async (host) =>
          host === "r" ? { username: "u", password } : host === "t" ? { registryToken: "RT" } : {},
      });
    const a = await start([provider("p", path("a"))]);
    const b = await start([provider("p", path("a"))]);
    const c = await start([provider("other", path("c"))]);
    const auth = (...callers: SessionCaller[]) =>
      new SessionAuth(
        sessions,
        callers.map((x) => x.id),
      );
    assert.deepEqual(await auth(a).credentials("r"), { sessionId: a.id, username: "u", secret: "p" });
    assert.equal((await auth(a).credentials("none")).secret, "");
    const ask = { Host: "r", Service: "s", Scopes: ["repository:x:pull"] };
    const token = await auth(a).fetchToken({ ...ask, Realm: `${base}/token` });
    assert.equal(token.Token, "T");
    assert.equal(token.ExpiresIn, 300n);
    assert.equal(token.IssuedAt, 1767225600n);
    await auth(a).fetchToken({ ...ask, Realm: `${base}/nopost` });
    assert.equal((await auth(a).fetchToken({ ...ask, Host: "t", Realm: "x" })).Token, "RT");
    assert.deepEqual(asked, [
      "POST /token ",
      "POST /nopost ",
      `GET /nopost?service=s&scope=repository%3Ax%3Apull Basic ${Buffer.from("u:p").toString("base64")}`,
    ]);
    const key = await auth(a).tokenAuthority("r");
    assert.ok(key);
    assert.equal((await auth(b).verifyTokenAuthority("r", key.publicKey)).verified, true);
    assert.equal((await auth(c).verifyTokenAuthority("r", key.publicKey)).verified, false);
    const bare = await start([]);
    assert.equal(await auth(bare).tokenAuthority("r"), undefined);
    assert.equal((await auth(bare).credentials("r")).secret, "");
    assert.equal(statSync(join(path("a"), ".token_seed")).mode & 0o777, 0o600);
    server.close();
  });
  test("exporters and policy", async () => {
    let final: unknown;
    const caller = await start([
      new ExporterProvider({
        find: async (md, refs) => [
          { type: "image", attrs: { name: `${refs.length}${Buffer.from(md.k ?? []).toString()}` } },
        ],
        finalize: async (r) => {
          final = r;
        },
      }),
      new PolicyProvider(async (request) => ({
        result: {
          case: "decision",
          value: {
            action: request.Platform?.OS === "linux" ? PolicyAction.ALLOW : PolicyAction.DENY,
            denyMessages: [{ message: "no" }],
          },
        },
      })),
    ]);
    const found = await findExporters(caller, { metadata: { k: Buffer.from("v") }, refs: ["r"] });
    assert.deepEqual(
      found.map((e) => [e.Type, e.Attrs]),
      [["image", { name: "1v" }]],
    );
    await finalizeExport(caller, { a: "b" });
    assert.deepEqual(final, { a: "b" });
    const answer = await checkPolicy(caller, { Platform: { OS: "windows" } });
    assert.ok(answer.result.case === "decision" && answer.result.value.denyMessages[0]?.message === "no");
    await finalizeExport(await start([]), {});
  });
  test("content: read ranges, write, refuse", async () => {
    const data = Buffer.alloc(3_000_000, "0123456789");
    const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
    const caller = await start([
      new ContentProvider([
        ["local:x", new DirBlobStore(path("store"), { writable: true })],
        ["oci:y", new DirBlobStore(path("store"))],
      ]),
    ]);
    const store = contentOf(caller, "local:x");
    await assert.rejects(store.info(digest), { code: "not_found" });
    assert.equal((await store.write("ref1", [data], { digest, sizeBytes: data.length })).digest, digest);
    assert.equal((await store.info(digest)).sizeBytes, data.length);
    await assert.rejects(store.write("ref1", [data], { digest }), { code: "already_exists" });
    await assert.rejects(store.write("ref2", [Buffer.from("x")], { digest: `sha256:${"0".repeat(64)}` }), {
      code: "failed_precondition",
    });
    const part: Uint8Array[] = [];
    for await (const p of contentOf(caller, "oci:y").read(digest, { offset: 5, sizeBytes: 10 })) part.push(p);
    assert.equal(Buffer.concat(part).toString(), "5678901234");
    let n = 0;
    for await (const p of store.read(digest)) n += p.length;
    assert.equal(n, data.length);
    const listed: string[] = [];
    for await (const b of store.list()) listed.push(b.digest);
    assert.deepEqual(listed, [digest]);
    await assert.rejects(contentOf(caller, "oci:y").write("r", [Buffer.from("x")]), {
      code: "failed_precondition",
    });
    await assert.rejects(contentOf(caller, "local:../..").info(digest), { code: "not_found" });
    await assert.rejects(store.info("sha256:../../../etc/passwd"), { code: "invalid_argument" });
  });
});

describe("ssh", () => {
  const listKeys = async (sock: string, messages: Buffer[]): Promise<Buffer[]> => {
    const socket = connect(sock);
    const answers: Buffer[] = [];
    for (const m of messages) {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(m.length);
      socket.write(Buffer.concat([head, m]));
      const chunk = await new Promise<Buffer>((resolve) => socket.once("data", resolve));
      answers.push(chunk.subarray(4));
    }
    socket.end();
    await new Promise((resolve) => socket.once("close", resolve));
    return answers;
  };
  test("key files become an agent", async () => {
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", path("ed")]);
    execFileSync("ssh-keygen", ["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path("rsa")]);
    execFileSync("ssh-keygen", ["-q", "-t", "ecdsa", "-N", "", "-f", path("ec")]);
    writeFileSync(
      path("pem"),
      generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }),
    );
    const caller = await start([new SshProvider([{ id: "", paths: ["ed", "rsa", "ec", "pem"].map(path) }])]);
    await checkSshAgent(caller, "default");
    await assert.rejects(checkSshAgent(caller, "x"), { message: "unset ssh forward key x" });
    await using sock = await mountSshSocket(caller, {
      id: "",
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      mode: 0o600,
    });
    assert.equal(statSync(sock.path).mode & 0o777, 0o600);
    const blob = Buffer.from(readFileSync(path("ed.pub"), "utf8").split(" ")[1] ?? "", "base64");
    const sign = Buffer.concat([Buffer.of(13), sshStrings(blob, "data"), Buffer.alloc(4)]);
    const [list, signed, refused] = await listKeys(sock.path, [Buffer.of(11), sign, Buffer.of(19)]);
    const r = new SshReader(list?.subarray(1) ?? Buffer.alloc(0));
    assert.equal(r.uint32(), 4);
    assert.ok(r.bytes().equals(blob));
    assert.equal(r.text(), "me");
    const env = { ...process.env, SSH_AUTH_SOCK: sock.path };
    const listed = await new Promise<string>((resolve, reject) =>
      import("node:child_process").then((cp) =>
        cp.execFile("ssh-add", ["-L"], { env }, (e, out) => (e ? reject(e) : resolve(out))),
      ),
    );
    for (const k of ["ed", "rsa", "ec"])
      assert.ok(listed.includes(readFileSync(path(`${k}.pub`), "utf8").split(" ")[1] ?? "?"), k);
    const s = new SshReader(new SshReader(signed?.subarray(1) ?? Buffer.alloc(0)).bytes());
    assert.equal(s.text(), "ssh-ed25519");
    const pub = createPublicKey({
      key: { kty: "OKP", crv: "Ed25519", x: blob.subarray(-32).toString("base64url") },
      format: "jwk",
    });
    assert.ok(verify(null, Buffer.from("data"), pub, s.bytes()));
    assert.deepEqual(refused, Buffer.of(5));
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "pass", "-f", path("enc")]);
    assert.throws(() => new SshProvider([{ id: "a", paths: [path("enc")] }]), /passphrase protected/);
  });
  test("an agent's socket is forwarded, changes to it are not; raw passes all", async () => {
    const seen: number[] = [];
    const agent = createNetServer((s) =>
      s.on("data", (d) => {
        seen.push(Number(d[4]));
        s.write(Buffer.from([0, 0, 0, 1, 6]));
      }),
    );
    await new Promise<void>((resolve) => agent.listen(path("agent"), resolve));
    const caller = await start([
      new SshProvider([
        { id: "a", paths: [path("agent")] },
        { id: "r", paths: [path("agent")], raw: true },
      ]),
    ]);
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, mode: 0o600 };
    const a = await mountSshSocket(caller, { id: "a", ...owner });
    const r = await mountSshSocket(caller, { id: "r", ...owner });
    assert.deepEqual(await listKeys(a.path, [Buffer.of(11), Buffer.of(17)]), [Buffer.of(6), Buffer.of(5)]);
    assert.deepEqual(await listKeys(r.path, [Buffer.of(17)]), [Buffer.of(6)]);
    assert.deepEqual(seen, [11, 17]);
    await a[Symbol.asyncDispose]();
    await r[Symbol.asyncDispose]();
    assert.ok(!existsSync(a.path));
    agent.close();
    assert.throws(
      () =>
        new SshProvider([
          { id: "a", paths: [path("agent")] },
          { id: "a", paths: [] },
        ]),
      (e) => isBuildError(e),
    );
  });
});
