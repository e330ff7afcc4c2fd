import assert from "node:assert/strict";
import { connect as connectHttp2, createServer, type Http2Server, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect as connectNet, createServer as createNetServer } from "node:net";
import { describe, test } from "node:test";
import { sleep } from "@kiln/base";
import fc from "fast-check";
import { duplexPair } from "../duplex.ts";
import { type ConnectionOptions, H2Connection } from "./connection.ts";
import { type Frame, FrameParser, FrameType, makeFrame } from "./frames.ts";
import { decodeHuffman, encodeHeaders, HeadersTooLarge, HpackDecoder, HpackError } from "./hpack.ts";
import { ResetBudget } from "./reset-budget.ts";
import type { H2Stream } from "./stream.ts";

const limits = {
  streamWindowBytes: 128 << 10,
  connectionWindowBytes: 1 << 20,
  maxHeaderBytes: 64 << 10,
  maxConcurrentStreams: 100,
};
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

describe("HPACK", () => {
  test("examples of RFC 7541, C.3 and C.4: a table that is kept between blocks, with and without Huffman", () => {
    const first = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com"];
    const second = [...first, "cache-control", "no-cache"];
    const plain = new HpackDecoder(1000);
    assert.deepEqual(plain.decode(hex("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d")), first);
    assert.deepEqual(plain.decode(hex("8286 84be 5808 6e6f 2d63 6163 6865")), second);
    const huffman = new HpackDecoder(1000);
    assert.deepEqual(huffman.decode(hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")), first);
    assert.deepEqual(huffman.decode(hex("8286 84be 5886 a8eb 1064 9cbf")), second);
  });
  test("what is encoded is read back", () => {
    const text = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((n) => String.fromCharCode(n)) });
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text), { maxLength: 20 }), (pairs) => {
        const lines = [":status", "200", "content-type", "application/grpc", ...pairs.flat()];
        assert.deepEqual(new HpackDecoder(1 << 20).decode(encodeHeaders(lines)), lines);
      }),
    );
    const long = ["x-long", "y".repeat(100_000)];
    assert.deepEqual(new HpackDecoder(1 << 20).decode(encodeHeaders(long)), long);
  });
  test("broken blocks are refused", () => {
    const broken = [
      "ff ff ff ff ff ff ff",
      "80",
      "be",
      "40",
      "00 7f",
      "82 20",
      "3f ff ff 7f",
      "00 83 ff ff ff",
    ];
    for (const block of broken)
      assert.throws(() => new HpackDecoder(1000).decode(hex(block)), HpackError, block);
    assert.throws(() => decodeHuffman(hex("ff ff ff ff")), HpackError);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          new HpackDecoder(1000).decode(bytes);
        } catch (error) {
          assert.ok(error instanceof HpackError || error instanceof HeadersTooLarge, String(error));
        }
      }),
    );
  });
  test("a small block that means many lines is refused", () => {
    const entry = encodeHeaders(["x", "y".repeat(3000)]);
    entry[0] = 0x40;
    const bomb = Buffer.concat([entry, Buffer.alloc(10_000, 0xbe)]);
    assert.throws(() => new HpackDecoder(64 << 10).decode(bomb), HeadersTooLarge);
  });
});

test("frames are found however the bytes are cut", () => {
  const bytes = Buffer.concat(
    [0, 1, 9, 300, 0, 16_384].map((n, i) => makeFrame({ type: i, flags: i, id: i }, Buffer.alloc(n, i))),
  );
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 4000 }), { minLength: 1 }), (cuts) => {
      const parser = new FrameParser();
      const frames: Frame[] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const n = cuts[i % cuts.length] as number;
        parser.push(bytes.subarray(at, at + n), (frame) => frames.push(frame));
        at += n;
      }
      assert.deepEqual(
        frames.map(({ type, id, payload }) => [type, id, payload.length]),
        [0, 1, 9, 300, 0, 16_384].map((n, i) => [i, i, n]),
      );
    }),
    { numRuns: 50 },
  );
});

function pair(server: Partial<ConnectionOptions> = {}): { client: H2Connection; server: H2Connection } {
  const [a, b] = duplexPair();
  return {
    client: new H2Connection(a, { role: "client", ...limits }),
    server: new H2Connection(b, { role: "server", ...limits, ...server }),
  };
}

/** Collects what comes on a stream until it is over. */
function collect(stream: H2Stream): Promise<{ bytes: number; lines: string[]; code: number }> {
  let bytes = 0;
  const lines: string[] = [];
  return new Promise((resolve) => {
    stream.events = {
      onHeaders: (more) => lines.push(...more),
      onTrailers: (more) => lines.push(...more),
      onData: (chunk) => {
        bytes += chunk.length;
      },
      onClose: () => resolve({ bytes, lines, code: stream.rstCode }),
    };
  });
}

describe("two connections", () => {
  test("data beyond all windows, headers beyond a frame, trailers", async () => {
    const { client, server } = pair({
      onStream: (stream) => {
        stream.events.onData = (chunk) => stream.write(chunk);
        stream.events.onEnd = () => stream.end(["x-end", "z".repeat(20_000)]);
        stream.respond([":status", "200", "x-many", "v".repeat(40_000)]);
      },
    });
    const stream = client.request([":method", "POST", ":path", "/echo"]);
    const answer = collect(stream);
    for (let i = 0; i < 40; i++) stream.write(Buffer.alloc(100_000, i));
    stream.end();
    const { bytes, lines, code } = await answer;
    assert.deepEqual([bytes, code], [4_000_000, 0]);
    assert.deepEqual(
      lines.map(({ length }) => length),
      [7, 3, 6, 40_000, 5, 20_000],
    );
    client.close();
    await Promise.all([client.gone, server.gone]);
  });
  test("a stream that nobody reads stops its sender, not the others", async () => {
    const { client, server } = pair({
      onStream: (stream) => {
        stream.respond([":status", "200"]);
        for (let i = 0; i < 50; i++) stream.write(Buffer.alloc(10_000));
        stream.end([]);
      },
    });
    const slow = client.request([":method", "POST"]);
    const slowEnd = collect(slow);
    slow.pause();
    slow.end();
    const fast = client.request([":method", "POST"]);
    fast.end();
    assert.equal((await collect(fast)).bytes, 500_000);
    slow.resume();
    assert.equal((await slowEnd).bytes, 500_000);
    client.destroy();
    await server.gone;
  });
  test("streams over the peer's limit wait; a lost connection ends all", async () => {
    const open: H2Stream[] = [];
    const { client } = pair({ maxConcurrentStreams: 2, onStream: (stream) => open.push(stream) });
    await sleep(5);
    const streams = Array.from({ length: 5 }, () => client.request([":method", "POST"]));
    const ends = streams.map(collect);
    await sleep(5);
    assert.equal(open.length, 2);
    open[0]?.close(8);
    await sleep(5);
    assert.equal(open.length, 3);
    client.destroy(new Error("gone"));
    assert.deepEqual(new Set((await Promise.all(ends)).map(({ code }) => code)), new Set([8]));
    assert.equal(streams[4]?.error?.message, "gone");
  });
});

describe("with node:http2", () => {
  test("as the client", async () => {
    const server: Http2Server = createServer({ settings: { headerTableSize: 0, initialWindowSize: 1000 } });
    server.on("stream", (stream: ServerHttp2Stream) => {
      stream.respond({ ":status": 200, "x-a": "1" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-b": "2" }));
      stream.pipe(stream);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const { port } = server.address() as AddressInfo;
    const socket = connectNet(port, "127.0.0.1");
    const client = new H2Connection(socket, { role: "client", ...limits });
    for (let round = 0; round < 3; round++) {
      const stream = client.request([":method", "POST", ":path", "/", ":scheme", "http", ":authority", "a"]);
      const answer = collect(stream);
      stream.write(Buffer.alloc(300_000));
      stream.end();
      const { bytes, lines } = await answer;
      assert.equal(bytes, 300_000);
      assert.ok(lines.includes("x-a") && lines.includes("x-b"));
    }
    client.close();
    await client.gone;
    server.close();
  });
  test("as the server", async () => {
    const connections: H2Connection[] = [];
    const server = createNetServer((socket) => {
      const onStream = (stream: H2Stream): void => {
        stream.respond([":status", "200"]);
        stream.events.onData = (chunk) => stream.write(chunk);
        stream.events.onEnd = () => stream.end(["x-b", "2"]);
      };
      connections.push(new H2Connection(socket, { role: "server", ...limits, onStream }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const client = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    for (let round = 0; round < 3; round++) {
      const stream = client.request({ ":method": "POST", ":path": "/", [`x-round-${round}`]: "ünï" });
      let bytes = 0;
      let trailers: unknown;
      stream.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      stream.on("trailers", (lines) => {
        trailers = lines["x-b"];
      });
      stream.end(Buffer.alloc(300_000));
      await new Promise((resolve) => stream.on("close", resolve));
      assert.deepEqual([bytes, trailers], [300_000, "2"]);
    }
    client.close();
    await Promise.all(connections.map(({ gone }) => gone));
    server.close();
  });
});

test("a peer that breaks the rules is told so and left", async () => {
  const cases: [string, Buffer][] = [
    ["data without a stream", makeFrame({ type: FrameType.data, id: 1 }, Buffer.alloc(3))],
    ["a push", makeFrame({ type: FrameType.pushPromise, id: 1 }, Buffer.alloc(8))],
    ["padding", makeFrame({ type: FrameType.headers, id: 1, flags: 8 }, Buffer.from([9, 1]))],
    ["a window of nothing", makeFrame({ type: FrameType.windowUpdate }, Buffer.alloc(4))],
    ["a block without its end", makeFrame({ type: FrameType.headers, id: 1 }, Buffer.from([0x82]))],
    ["a frame that is too large", makeFrame({ type: FrameType.data, id: 1 }, Buffer.alloc(16_385))],
    ["an even stream", makeFrame({ type: FrameType.headers, id: 2, flags: 5 }, Buffer.from([0x82]))],
  ];
  for (const [name, bytes] of cases) {
    const [a, b] = duplexPair();
    const server = new H2Connection(b, { role: "server", ...limits });
    const seen: Frame[] = [];
    const parser = new FrameParser();
    a.on("data", (chunk: Buffer) => parser.push(chunk, (frame) => seen.push(frame)));
    a.on("error", () => undefined);
    a.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    a.write(bytes);
    a.write(makeFrame({ type: FrameType.ping }, Buffer.alloc(8)));
    await server.gone;
    await sleep(1);
    assert.equal(seen.at(-1)?.type, FrameType.goaway, name);
  }
});

test("resets have a budget", () => {
  const budget = new ResetBudget();
  let taken = 0;
  while (taken < 5000 && budget.take()) taken++;
  assert.ok(taken >= 1000 && taken < 1200, String(taken));
});
