import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectNet, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { Control } from "@kiln/api/control";
import { BuildError, sleep } from "@kiln/base";
import { Channel, dialAddress } from "./client.ts";
import { duplexPair } from "./duplex.ts";
import { type Listener, listen, Router } from "./server.ts";

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
let router: Router;
let listener: Listener;
let port: number;
const bugs: unknown[] = [];

before(async () => {
  router = new Router({ onBug: (e) => bugs.push(e) }).add(Control, {
    info: () => ({ buildkitVersion: { version: "alive" } }),
    async session(call) {
      for await (const m of call) await call.send(m);
    },
    // says much, and ends while the client still sends
    async *status(message) {
      for (let i = 0; i < 16; i++) yield { logs: [{ msg: new Uint8Array(64 * 1024) }] };
      if (message.Ref === "fails") throw new BuildError("not_found", "the end");
    },
  });
  listener = await listen(router, { kind: "tcp", host: "127.0.0.1", port: 0 });
  port = Number(listener.address.split(":").pop());
});
after(async () => {
  await listener.close();
  await router.close({ timeoutMs: 200 });
});

async function alive(): Promise<void> {
  await using channel = new Channel(dialAddress(`tcp://127.0.0.1:${port}`));
  const answer = await channel.unary(Control.method.info, {}, { timeoutMs: 5000 });
  assert.equal(answer.buildkitVersion?.version, "alive");
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

async function raw(send: (socket: Socket) => void, ms = 300): Promise<void> {
  const socket = connectNet(port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.resume();
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  send(socket);
  await Promise.race([closed, sleep(ms)]);
  socket.destroy();
  await closed;
}

test("the end of a call isn't taken back by the reset for a client that goes on sending", async () => {
  const client = connectHttp2(`http://127.0.0.1:${port}`);
  try {
    const request = client.request({
      ":method": "POST",
      ":path": "/moby.buildkit.v1.Control/Status",
      "content-type": "application/grpc",
      te: "trailers",
    });
    request.on("error", () => undefined);
    const ref = Buffer.from([0x0a, 5, ...Buffer.from("fails")]);
    request.write(Buffer.concat([Buffer.from([0, 0, 0, 0, ref.length]), ref]));
    // The request stays open, and the answer lies in windows and sockets until the client reads.
    await sleep(300);
    let bytes = 0;
    request.on("data", (part: Buffer) => {
      bytes += part.length;
    });
    const begin = performance.now();
    const [trailers] = (await once(request, "trailers", { signal: AbortSignal.timeout(5000) })) as [
      Record<string, string>,
    ];
    assert.equal(trailers["grpc-status"], "5");
    assert.equal(trailers["grpc-message"], "the end");
    assert.ok(bytes > 16 * 64 * 1024, `${bytes} bytes came`);
    // Who never stops by himself is told to after a while.
    if (!request.closed) await once(request, "close");
    assert.ok(performance.now() - begin < 5000);
    assert.equal(request.rstCode, 0);
  } finally {
    client.destroy();
  }
});

describe("the server survives", () => {
  test("random frames", async () => {
    for (let i = 0; i < 150; i++) {
      const parts = [Buffer.from(preface), frame(4, 0, 0, Buffer.alloc(0))];
      for (let k = randomInt(1, 12); k > 0; k--) {
        parts.push(
          frame(randomInt(0, 11), randomInt(0, 256), randomInt(0, 12), randomBytes(randomInt(0, 60))),
        );
      }
      await raw((s) => s.end(Buffer.concat(parts)), 50);
    }
    await alive();
  });
  test("headers without end, and a CONTINUATION flood", async () => {
    await raw((s) => {
      s.write(
        Buffer.concat([
          Buffer.from(preface),
          frame(4, 0, 0, Buffer.alloc(0)),
          frame(1, 0, 1, Buffer.from([0x82])),
        ]),
      );
      for (let i = 0; i < 2000; i++)
        s.write(
          frame(
            9,
            0,
            1,
            Buffer.concat([Buffer.from([0x00, 1, 0x61, 0x7f, 0x81, 0x7f]), Buffer.alloc(256, 0x61)]),
          ),
        );
    });
    await alive();
  });
  test("rapid resets", async () => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    session.on("error", () => undefined);
    for (let i = 0; i < 3000 && !session.destroyed && !session.closed; i++) {
      const stream = session.request({
        ":method": "POST",
        ":path": "/moby.buildkit.v1.Control/Session",
        "content-type": "application/grpc",
      });
      stream.on("error", () => undefined);
      stream.close(8);
      if (i % 200 === 0) await sleep(1);
    }
    session.destroy();
    await alive();
  });
  test("bogus messages and requests that are no gRPC", async () => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const ask = (headers: Record<string, string>, body: Uint8Array): Promise<unknown> =>
      new Promise((resolve) => {
        const stream = session.request({
          ":method": "POST",
          ":path": "/moby.buildkit.v1.Control/Info",
          "content-type": "application/grpc",
          ...headers,
        });
        let status: unknown;
        stream.on("error", () => undefined);
        stream.on("response", (h) => {
          status = h["grpc-status"] ?? h[":status"];
        });
        stream.on("trailers", (h) => {
          status = h["grpc-status"];
        });
        stream.on("close", () => resolve(status));
        stream.resume();
        stream.end(body);
      });
    assert.equal(await ask({ ":method": "GET" }, new Uint8Array(0)), 405);
    assert.equal(await ask({ "content-type": "text/html" }, new Uint8Array(0)), 415);
    assert.equal(await ask({}, new Uint8Array(0)), "13");
    assert.equal(await ask({}, Buffer.from([0, 0, 0, 0, 9, 1])), "13");
    assert.equal(await ask({}, Buffer.from([7, 0, 0, 0, 0])), "13");
    assert.equal(await ask({}, Buffer.from([0, 255, 255, 255, 255])), "8");
    assert.equal(await ask({ "grpc-timeout": "soon" }, Buffer.alloc(5)), "13");
    assert.equal(await ask({ "x-bin": "%%%" }, Buffer.alloc(5)), "0");
    session.destroy();
    await alive();
    assert.deepEqual(bugs, []);
  });
  test("headers over the limit", async () => {
    await using channel = new Channel(dialAddress(`tcp://127.0.0.1:${port}`));
    const lines = Array.from({ length: 40_000 }, (_, i) => `pattern-${i}-${"x".repeat(40)}`);
    await assert.rejects(channel.unary(Control.method.info, {}, { metadata: { k: lines }, timeoutMs: 5000 }));
    await alive();
  });
});

describe("keepalive", () => {
  test("a peer that is silent is given up", async () => {
    const [a, b] = duplexPair();
    b.resume();
    await using channel = Channel.over(a, { keepaliveMs: 40, keepaliveTimeoutMs: 40 });
    const started = performance.now();
    await assert.rejects(channel.unary(Control.method.info, {}, { timeoutMs: 5000 }), {
      code: "unavailable",
    });
    assert.ok(performance.now() - started < 3000);
  });
  test("one that answers stays", async () => {
    await using channel = new Channel(dialAddress(`tcp://127.0.0.1:${port}`), {
      keepaliveMs: 20,
      keepaliveTimeoutMs: 200,
    });
    const call = await channel.call(Control.method.session);
    await sleep(150);
    await call.send({ data: new Uint8Array(3) });
    assert.equal((await call.receive())?.data.length, 3);
    call.cancel();
  });
});

test("streams over the limit wait for their turn", async () => {
  const small = new Router({ maxConcurrentStreams: 4 }).add(Control, {
    info: async () => {
      await sleep(5);
      return {};
    },
  });
  const [a, b] = duplexPair();
  small.accept(b);
  await using channel = Channel.over(a);
  await Promise.all(Array.from({ length: 40 }, () => channel.unary(Control.method.info, {})));
  await channel.close();
  await small.close();
});
