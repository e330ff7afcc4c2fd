import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectNet } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { BytesMessageSchema, Control, InfoResponseSchema } from "@kiln/api/control";
import { Health } from "@kiln/api/health";
import { ServerReflection } from "@kiln/api/reflection";
import { BuildError, isBuildError, sleep } from "@kiln/base";
import { Channel, dialAddress } from "./client.ts";
import { duplexPair, openMessageDuplex } from "./duplex.ts";
import type { Metadata } from "./metadata.ts";
import { addReflection, HealthStatus, type Listener, listen, Router } from "./server.ts";
import { percentDecode, percentEncode } from "./status.ts";

const seen: { metadata?: Metadata; aborted?: unknown; bugs: unknown[] } = { bugs: [] };

function makeRouter(): Router {
  const router = new Router({ onBug: (e) => seen.bugs.push(e) });
  router.add(Control, {
    info: async (_request, ctx) => {
      seen.metadata = ctx.metadata;
      ctx.sendHeaders({ "x-now": "1", "x-bin": "a" });
      ctx.trailers.append("x-after", "2");
      if (ctx.metadata.has("x-fail")) {
        throw new BuildError("not_found", "no such thing: ünï\n100%", {
          wire: [
            { typeUrl: "github.com/moby/buildkit/errdefs.Vertex+json", value: Buffer.from('{"digest":"x"}') },
          ],
        });
      }
      if (ctx.metadata.has("x-hang")) {
        await new Promise((_resolve, reject) =>
          ctx.signal.addEventListener("abort", () => {
            seen.aborted = ctx.signal.reason;
            reject(ctx.signal.reason);
          }),
        );
      }
      return { buildkitVersion: { version: "v1" } };
    },
    async *prune(request) {
      for (let i = 0n; i < request.keepDuration; i++) yield { ID: String(i) };
      if (request.all) throw new BuildError("aborted", "after all");
    },
    async session(call) {
      for await (const m of call) {
        if (m.data.length === 1) return;
        await call.send(m);
      }
    },
    listenBuildHistory() {
      throw new TypeError("bug");
    },
  });
  new HealthStatus().addTo(router);
  addReflection(router);
  return router;
}

const dir = mkdtempSync(join(tmpdir(), "kiln-grpc-"));
const path = join(dir, "s");
let listener: Listener;
let channel: Channel;
let router: Router;

before(async () => {
  router = makeRouter();
  listener = await listen(router, { kind: "unix", path });
  channel = new Channel(dialAddress(`unix://${path}`));
});
after(async () => {
  await channel.close();
  await listener.close();
  await router.close({ timeoutMs: 1000 });
  rmSync(dir, { recursive: true, force: true });
});

/** Waits until the hanging handler has been told to stop; a busy machine takes its time. */
async function handlerEnd(): Promise<void> {
  for (let tries = 0; seen.aborted === undefined && tries < 500; tries++) await sleep(20);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

describe("calls", () => {
  test("unary with ordered, repeated and binary metadata both ways", async () => {
    let headers: Metadata | undefined;
    let trailers: Metadata | undefined;
    const metadata: [string, string | Uint8Array][] = [
      ["a", "1, 2"],
      ["b-bin", new Uint8Array([255, 0])],
      ["A", "3"],
    ];
    const response = await channel.unary(
      Control.method.info,
      {},
      {
        metadata,
        onHeaders: (m) => {
          headers = m;
        },
        onTrailers: (m) => {
          trailers = m;
        },
      },
    );
    assert.equal(response.buildkitVersion?.version, "v1");
    assert.deepEqual(seen.metadata?.getAll("a"), ["1, 2", "3"]);
    assert.deepEqual(seen.metadata?.getBinary("b-bin"), [new Uint8Array([255, 0])]);
    assert.equal(headers?.get("x-now"), "1");
    assert.equal(trailers?.get("x-after"), "2");
  });
  test("an error with details", async () => {
    await assert.rejects(channel.unary(Control.method.info, {}, { metadata: { "x-fail": "1" } }), (e) => {
      assert.ok(isBuildError(e, "not_found"));
      assert.equal(e.message, "no such thing: ünï\n100%");
      assert.equal(e.wire[0]?.typeUrl, "github.com/moby/buildkit/errdefs.Vertex+json");
      assert.equal(Buffer.from(e.wire[0]?.value ?? []).toString(), '{"digest":"x"}');
      return true;
    });
  });
  test("a server stream, also one that fails after its messages", async () => {
    const all = await collect(channel.serverStream(Control.method.prune, { keepDuration: 2000n }));
    assert.equal(all.length, 2000);
    const ids: string[] = [];
    await assert.rejects(
      async () => {
        for await (const r of channel.serverStream(Control.method.prune, { keepDuration: 3n, all: true }))
          ids.push(r.ID);
      },
      { code: "aborted" },
    );
    assert.deepEqual(ids, ["0", "1", "2"]);
  });
  test("leaving a stream early cancels it", async () => {
    for await (const r of channel.serverStream(Control.method.prune, { keepDuration: 1_000_000n })) {
      if (r.ID === "5") break;
    }
    assert.equal((await channel.unary(Control.method.info, {})).buildkitVersion?.version, "v1");
  });
  test("bidi with large messages and back-pressure", async () => {
    const data = new Uint8Array(3 << 20).fill(7);
    async function* requests() {
      for (let i = 0; i < 8; i++) yield { data };
    }
    const answers = await collect(channel.bidi(Control.method.session, requests()));
    assert.equal(
      answers.reduce((n, m) => n + m.data.length, 0),
      8 * data.length,
    );
  });
  test("a server that ends first leaves the client with OK", async () => {
    const call = await channel.call(Control.method.session);
    await call.send({ data: new Uint8Array(1) });
    assert.equal(await call.receive(), undefined);
    await assert.rejects(call.send({ data: new Uint8Array(1) }), { code: "unavailable" });
  });
  test("failing requests cancel the call with their error", async () => {
    async function* requests(): AsyncGenerator<{ data: Uint8Array }> {
      yield { data: new Uint8Array(2) };
      throw new BuildError("data_loss", "disk gone");
    }
    await assert.rejects(collect(channel.bidi(Control.method.session, requests())), { code: "data_loss" });
  });
  test("unknown method, unimplemented method, a bug", async () => {
    const call = await channel.rawCall("/no.Such/Thing");
    await assert.rejects(call.receive(), { code: "unimplemented", message: "unknown service no.Such" });
    await assert.rejects(channel.unary(Control.method.diskUsage, {}), { code: "unimplemented" });
    await assert.rejects(collect(channel.serverStream(Control.method.listenBuildHistory, {})), {
      code: "unknown",
      message: "bug",
    });
    assert.equal(seen.bugs.length, 1);
  });
});

describe("limits", () => {
  test("messages over 16 MiB are refused on both sides", async () => {
    const call = await channel.call(Control.method.session);
    await assert.rejects(call.send({ data: new Uint8Array((16 << 20) + 1) }), { code: "resource_exhausted" });
    call.cancel();
    await using big = new Channel(dialAddress(`unix://${path}`), { maxMessageBytes: 64 << 20 });
    const over = await big.call(Control.method.session);
    over.send({ data: new Uint8Array((16 << 20) + 1) }).catch(() => undefined);
    await assert.rejects(over.receive(), {
      code: "resource_exhausted",
      message: /received message larger than max \(167772\d\d vs. 16777216\)/,
    });
  });
  test("deadline: the client gives up, the server's handler sees it", async () => {
    seen.aborted = undefined;
    await assert.rejects(
      channel.unary(Control.method.info, {}, { metadata: { "x-hang": "1" }, timeoutMs: 500 }),
      { code: "deadline_exceeded" },
    );
    await handlerEnd();
    assert.ok(isBuildError(seen.aborted), String(seen.aborted));
  });
  test("cancellation reaches the handler", async () => {
    seen.aborted = undefined;
    const stop = new AbortController();
    const call = channel.unary(Control.method.info, {}, { metadata: { "x-hang": "1" }, signal: stop.signal });
    setTimeout(() => stop.abort(), 300);
    await assert.rejects(call, { code: "canceled" });
    await handlerEnd();
    assert.ok(isBuildError(seen.aborted, "canceled"));
  });
  test("gzip messages are read; bombs and unknown encodings are refused", async () => {
    const send = async (encoding: string, payload: Uint8Array): Promise<Uint8Array | undefined> => {
      const { connect } = await import("node:http2");
      const session = connect("http://localhost", { createConnection: () => connectNet(path) });
      const stream = session.request({
        ":method": "POST",
        ":path": "/moby.buildkit.v1.Control/Info",
        "content-type": "application/grpc",
        te: "trailers",
        "grpc-encoding": encoding,
      });
      const head = Buffer.alloc(5);
      head[0] = 1;
      head.writeUInt32BE(payload.length, 1);
      stream.end(Buffer.concat([head, payload]));
      let status: unknown;
      stream.on("response", (h) => {
        status = h["grpc-status"];
      });
      stream.on("trailers", (h) => {
        status ??= h["grpc-status"];
      });
      stream.resume();
      await new Promise((resolve) => stream.once("close", resolve));
      session.destroy();
      return Buffer.from(String(status));
    };
    assert.equal(String(await send("gzip", gzipSync(new Uint8Array(0)))), "0");
    assert.equal(String(await send("gzip", gzipSync(new Uint8Array(17 << 20)))), "8");
    assert.equal(String(await send("gzip", new Uint8Array(9))), "13");
    assert.equal(String(await send("snappy", new Uint8Array(9))), "12");
  });
  test("many header lines, and long ones", async () => {
    const lines = Array.from({ length: 2000 }, (_, i) => `pattern-${i}-${"x".repeat(20)}`);
    await channel.unary(Control.method.info, {}, { metadata: { "include-patterns": lines } });
    assert.deepEqual(seen.metadata?.getAll("include-patterns"), lines);
  });
});

describe("the other services", () => {
  test("health", async () => {
    assert.equal((await channel.unary(Health.method.check, {})).status, 1);
    await assert.rejects(channel.unary(Health.method.check, { service: "x" }), { code: "not_found" });
  });
  test("reflection", async () => {
    async function* ask() {
      yield { messageRequest: { case: "listServices" as const, value: "" } };
      yield { messageRequest: { case: "fileContainingSymbol" as const, value: "moby.buildkit.v1.Control" } };
      yield { messageRequest: { case: "fileByFilename" as const, value: "nope.proto" } };
    }
    const [list, file, none] = await collect(
      channel.bidi(ServerReflection.method.serverReflectionInfo, ask()),
    );
    assert.ok(list?.messageResponse.case === "listServicesResponse");
    assert.deepEqual(
      list.messageResponse.value.service.map((s) => s.name),
      [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "moby.buildkit.v1.Control",
      ],
    );
    assert.ok(file?.messageResponse.case === "fileDescriptorResponse");
    assert.ok(file.messageResponse.value.fileDescriptorProto.length > 4);
    assert.equal(none?.messageResponse.case, "errorResponse");
  });
});

describe("connections", () => {
  test("garbage does not hurt the server", async () => {
    for (const bytes of [
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.from(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${"\xff".repeat(300)}`, "latin1"),
      Buffer.alloc(1000),
    ]) {
      const socket = connectNet(path);
      socket.on("error", () => undefined);
      socket.resume();
      socket.end(bytes);
      await new Promise((resolve) => socket.once("close", resolve));
    }
    const call = await channel.rawCall("/moby.buildkit.v1.Control/Info");
    await call.send(new Uint8Array([0xff, 0xff, 0xff]));
    call.closeSend();
    await assert.rejects(call.receive(), { code: "internal" });
    assert.equal((await channel.unary(Control.method.info, {})).buildkitVersion?.version, "v1");
  });
  test("the channel dials again after the connection was lost", async () => {
    const own = makeRouter();
    const p = join(dir, "again");
    const first = await listen(own, { kind: "unix", path: p });
    await using c = new Channel(dialAddress(`unix://${p}`));
    await c.unary(Control.method.info, {});
    await first.close();
    await own.close({ timeoutMs: 100 });
    await assert.rejects(c.unary(Control.method.info, {}), { code: "unavailable" });
    const second = makeRouter();
    await using _l = await listen(second, { kind: "unix", path: p });
    assert.equal((await c.unary(Control.method.info, {})).buildkitVersion?.version, "v1");
    await second.close({ timeoutMs: 100 });
  });
  test("a channel that is closed while it connects", async () => {
    // Closes a few microtasks after the dial, around the moment at which the session is made.
    for (let turns = 0; turns < 16; turns++) {
      const dial = dialAddress(`unix://${path}`);
      let closed: Promise<void> | undefined;
      const early = new Channel(async (signal) => {
        const stream = await dial(signal);
        const closeAfter = async () => {
          for (let i = 0; i < turns; i++) await undefined;
          await early.close({ force: true });
        };
        closed = closeAfter();
        return stream;
      });
      await early.unary(Control.method.info, {}).catch(() => undefined);
      await closed;
    }
  });
  test("graceful close finishes running calls", async () => {
    const own = makeRouter();
    const [a, b] = duplexPair();
    own.accept(b);
    await using c = Channel.over(a);
    const call = await c.call(Control.method.session);
    await call.send({ data: new Uint8Array(5) });
    assert.equal((await call.receive())?.data.length, 5);
    const closed = own.close();
    await sleep(20);
    await call.send({ data: new Uint8Array(6) });
    assert.equal((await call.receive())?.data.length, 6);
    call.closeSend();
    assert.equal(await call.receive(), undefined);
    await closed;
  });
  test("a tunnel: the server calls the client through a stream of bytes", async () => {
    const [a, b] = duplexPair();
    const outer = new Router().add(Control, {
      async session(call, ctx) {
        await using inner = Channel.over(
          openMessageDuplex({
            receive: async () => (await call.receive())?.data,
            send: (data) => call.send({ data }),
          }),
        );
        const info = await inner.unary(Control.method.info, {});
        ctx.trailers.append("x-version", info.buildkitVersion?.version ?? "");
        const data = new Uint8Array(1 << 20);
        async function* many() {
          for (let i = 0; i < 20; i++) yield { data };
        }
        let n = 0;
        for await (const m of inner.bidi(Control.method.session, many())) n += m.data.length;
        ctx.trailers.append("x-bytes", String(n));
      },
    });
    outer.accept(b);
    await using c = Channel.over(a);
    let trailers: Metadata | undefined;
    const call = await c.call(Control.method.session, {
      onTrailers: (m) => {
        trailers = m;
      },
    });
    const served = makeRouter().accept(
      openMessageDuplex({
        receive: async () => (await call.receive())?.data,
        send: (data) => call.send({ data }),
        closeSend: () => call.closeSend(),
        cancel: () => call.cancel(),
      }),
    );
    await served.closed;
    assert.equal(trailers?.get("x-version"), "v1");
    assert.equal(trailers?.get("x-bytes"), String(20 << 20));
  });
});

test("percent encoding of messages", () => {
  assert.equal(percentEncode("a%b\nü"), "a%25b%0A%C3%BC");
  assert.equal(percentDecode("a%25b%0A%C3%BC%zz%"), "a%b\nü%zz%");
  assert.equal(toBinary(BytesMessageSchema, create(BytesMessageSchema, {})).length, 0);
  assert.equal(InfoResponseSchema.typeName, "moby.buildkit.v1.InfoResponse");
});
