import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { connect } from "node:tls";
import { createNetwork } from "../cni-network.ts";
import { createOciExecutor, type OciExecutor } from "../oci-executor.ts";
import { withoutCa } from "../proxy-ca.ts";
import { removeBridgeRules } from "../testing/bridge-rules.ts";
import { makeBusyboxRoot } from "../testing/busybox-root.ts";
import { runIn, type TestResult } from "../testing/executor-suite.ts";
import { startZygote, type Zygote } from "../zygote.ts";
import { captureUrl, ProxyCapture } from "./proxy-capture.ts";
import type { ProxyConfig } from "./proxy-network.ts";
import { CertificateAuthority } from "./x509.ts";

describe("CertificateAuthority", () => {
  it("issues certificates that TLS clients accept", async () => {
    const authority = await CertificateAuthority.create();
    for (const host of ["example.com", "127.0.0.1", "::1"]) {
      const { pem, key } = authority.certificateFor(host);
      assert.equal(authority.certificateFor(host).pem, pem);
      const server = createTlsServer({ cert: pem, key: key.export({ type: "pkcs8", format: "pem" }) });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const { port } = server.address() as AddressInfo;
      await new Promise<void>((resolve, reject) => {
        const options = {
          port,
          host: "127.0.0.1",
          ca: authority.pem,
          ...(host === "example.com" ? { servername: host } : {}),
          ...(host === "::1" ? { checkServerIdentity: () => undefined } : {}),
        };
        const socket = connect(options, () => {
          assert.ok(socket.authorized);
          socket.destroy();
          resolve();
        });
        socket.once("error", reject);
      });
      server.close();
    }
  });
});

describe("withoutCa", () => {
  const pem = (text: string) => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;
  it("takes out what was added, and nothing else", () => {
    const [own, added] = [pem("AAAA"), pem("BBBB")];
    const block = `\n# buildkit proxy CA begin\n${added}# buildkit proxy CA end\n`;
    assert.equal(withoutCa(own + block, added), own);
    assert.equal(withoutCa(`${own}${block}${pem("CCCC")}`, added), own + pem("CCCC"));
    assert.equal(withoutCa(own + added + own, added), own + own);
    assert.equal(withoutCa(own, added), own);
  });
});

describe("captureUrl", () => {
  it("drops default ports and passwords", () => {
    assert.equal(captureUrl("http://a:80/x"), "http://a/x");
    assert.equal(captureUrl("https://a:443"), "https://a");
    assert.equal(captureUrl("https://a:80/x"), "https://a:80/x");
    assert.equal(captureUrl("https://u:secret@a/x"), "https://u:xxxxx@a/x");
  });
});

describe("proxied steps", () => {
  let base: string;
  let zygote: Zygote;
  let executor: OciExecutor;
  let server: Server;
  let origin: string;
  let rootfs: string;
  const hits: string[] = [];

  before(async () => {
    base = mkdtempSync(join(tmpdir(), "kiln-proxy-"));
    zygote = startZygote();
    executor = await createOciExecutor({ root: join(base, "state"), zygote });
    server = createServer((request, response) => {
      hits.push(`${request.method} ${request.url}`);
      if (request.url === "/redirect") response.writeHead(302, { location: "/file" }).end();
      else if (request.url === "/missing") response.writeHead(404).end("no");
      else response.end(`content of ${request.url}`);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    rootfs = makeBusyboxRoot(mkdtempSync(join(base, "root-")));
    mkdirSync(join(rootfs, "etc/ssl/certs"), { recursive: true });
    writeFileSync(join(rootfs, "etc/ssl/certs/ca-certificates.crt"), "# trusted\n");
    hits.length = 0;
  });
  after(async () => {
    server.close();
    await executor[Symbol.asyncDispose]();
    await zygote[Symbol.asyncDispose]();
    rmSync(base, { recursive: true });
  });

  // The origin is on the loopback device, which NO_PROXY would keep from the proxy.
  const run = (command: string, proxy: ProxyConfig, runner = executor): Promise<TestResult> =>
    runIn(runner, rootfs, `export NO_PROXY= no_proxy=; ${command}`, { sandbox: { proxy } });

  it("reach the network through the proxy only, which notes what they got", async () => {
    const capture = new ProxyCapture();
    const { stdout, code, stderr } = await run(
      `wget -q -O- ${origin}/redirect; echo; wget -q -O- ${origin}/missing; unset http_proxy HTTP_PROXY; ` +
        `wget -q -O- ${origin}/direct || echo blocked; env | grep -c _proxy`,
      { capture },
    );
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "content of /file\nblocked\n3\n");
    assert.deepEqual(hits, ["GET /redirect", "GET /file", "GET /missing"]);
    const digest = `sha256:${createHash("sha256").update("content of /file").digest("hex")}`;
    assert.deepEqual(capture.materials(), [
      { url: `${origin}/file`, digest },
      { url: `${origin}/redirect`, digest },
    ]);
    assert.deepEqual(capture.incomplete, [
      { method: "GET", url: `${origin}/missing`, reason: "unsuccessful_response" },
    ]);
    assert.equal(
      capture.summary(),
      `proxy network requests:\n- GET ${origin}/redirect -> 302\n- GET ${origin}/file -> 200\n- GET ${origin}/missing -> 404\n`,
    );
  });

  it("follow the policy", async () => {
    const asked: string[] = [];
    const check = async (url: string) => {
      asked.push(url);
      if (url.endsWith("/denied")) throw new Error("no");
      return { url: url.replace("/old", "/new"), hasAttrs: false };
    };
    const { stdout, stderr } = await run(`wget -q -O- ${origin}/old; wget -S -O- ${origin}/denied`, {
      check,
    });
    assert.equal(stdout, "content of /new");
    assert.match(stderr, /HTTP\/1.1 403 Forbidden/);
    assert.deepEqual(asked, [`${origin}/old`, `${origin}/denied`]);
    assert.deepEqual(hits, ["GET /new"]);
  });

  it("trust the proxy's authority while they run, and get a 502 for what can't be reached", async () => {
    const capture = new ProxyCapture();
    const { stdout, stderr } = await run(
      "grep -c 'proxy CA begin' /etc/ssl/certs/ca-certificates.crt; echo mine >> /etc/ssl/certs/ca-certificates.crt; " +
        "wget -S -O- http://nowhere.invalid/ 2>&1 | grep -c '502 Bad Gateway'",
      { capture },
    );
    assert.equal(stdout, "1\n2\n", stderr);
    assert.deepEqual(capture.incomplete, [
      { method: "GET", url: "http://nowhere.invalid/", reason: "upstream_error" },
    ]);
    assert.equal(
      readFileSync(join(rootfs, "etc/ssl/certs/ca-certificates.crt"), "utf8"),
      "# trusted\nmine\n",
    );
  });

  it("intercept TLS", async () => {
    const authority = await CertificateAuthority.create();
    const { pem, key } = authority.certificateFor("127.0.0.1");
    const secure = createTlsServer(
      { cert: pem, key: key.export({ type: "pkcs8", format: "pem" }) },
      (_req, res) => {
        res.end("secret");
      },
    );
    await new Promise<void>((resolve) => secure.listen(0, "127.0.0.1", resolve));
    const { port } = secure.address() as AddressInfo;
    const capture = new ProxyCapture();
    // The origin's authority is unknown to the daemon, so that the request ends there: but it got there in plain.
    await run(`wget -q -O- --no-check-certificate https://127.0.0.1:${port}/path`, { capture });
    secure.close();
    assert.deepEqual(
      capture.requests.map(({ url, statusCode }) => [url, statusCode]),
      [[`https://127.0.0.1:${port}/path`, 502]],
    );
  });

  it("fail when the certificate can't be taken out again", async () => {
    const grow =
      "dd if=/dev/zero bs=1048576 count=11 >> /etc/ssl/certs/ca-certificates.crt 2>/dev/null; exit 42";
    const { code, failure } = await run(grow, {});
    assert.equal(code, 42);
    assert.match(failure, /failed to clean up proxy CA: .*exceeds 10485760 bytes/);
  });

  it("go out over the network of their mode, not the host's loopback device", async () => {
    const network = await createNetwork({
      mode: "bridge",
      root: base,
      zygote,
      cniConfigPath: "",
      cniBinaryDir: "/usr/lib/cni",
      poolSize: 0,
      bridgeName: "kilntest2",
      bridgeSubnet: "10.86.0.0/16",
      env: {},
      warn: (text) => assert.fail(text),
    });
    const bridged = await createOciExecutor({ root: join(base, "state2"), zygote, network });
    const capture = new ProxyCapture();
    const outside = createServer((_request, response) => response.end("outside"));
    await new Promise<void>((resolve) => outside.listen(0, "10.86.0.1", resolve));
    const { port } = outside.address() as AddressInfo;
    const { stdout } = await run(
      `wget -q -O- http://10.86.0.1:${port}/; wget -q -O- ${origin}/x || echo refused`,
      { capture },
      bridged,
    );
    outside.close();
    await bridged[Symbol.asyncDispose]();
    removeBridgeRules("kilntest2");
    assert.equal(stdout, "outsiderefused\n");
    assert.deepEqual(hits, []);
    assert.deepEqual(
      capture.requests.map(({ statusCode }) => statusCode),
      [200, 502],
    );
  });
});
