import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { BytesMessageSchema, Control, InfoRequestSchema, InfoResponseSchema } from "@kiln/api/control";
import { BuildError, isBuildError } from "@kiln/base";
import { Channel, dialAddress } from "./client.ts";
import type { Metadata } from "./metadata.ts";
import { type Listener, listen, Router } from "./server.ts";

/** grpc-js is the independent peer: its client calls our server, our client calls its server. */
const bytes = (m: Uint8Array): Buffer => Buffer.from(m);
const definition = {
  info: {
    path: "/moby.buildkit.v1.Control/Info",
    requestStream: false,
    responseStream: false,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  },
  session: {
    path: "/moby.buildkit.v1.Control/Session",
    requestStream: true,
    responseStream: true,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  },
} as const;

const dir = mkdtempSync(join(tmpdir(), "kiln-grpc-"));
after(() => rmSync(dir, { recursive: true, force: true }));

describe("grpc-js client, our server", () => {
  const router = new Router();
  let listener: Listener;
  let client: grpc.Client;
  let seen: string[] = [];
  before(async () => {
    router.add(Control, {
      info: (_r, ctx) => {
        seen = ctx.metadata.getAll("x-many");
        if (ctx.metadata.has("x-fail"))
          throw new BuildError("failed_precondition", "näh", {
            wire: [{ typeUrl: "t/x+json", value: bytes(Buffer.from("{}")) }],
          });
        return { buildkitVersion: { version: "v2" } };
      },
      async session(call, ctx) {
        ctx.sendHeaders({ early: "yes" });
        for await (const m of call) {
          if (m.data.length === 1) return;
          await call.send(m);
        }
      },
    });
    listener = await listen(router, { kind: "unix", path: join(dir, "ours") });
    client = new grpc.Client(`unix:${join(dir, "ours")}`, grpc.credentials.createInsecure());
  });
  after(async () => {
    client.close();
    await listener.close();
    await router.close({ timeoutMs: 500 });
  });

  const info = (md: grpc.Metadata): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const d = definition.info;
      client.makeUnaryRequest(
        d.path,
        d.requestSerialize,
        d.responseDeserialize,
        Buffer.alloc(0),
        md,
        {},
        (error, value) => (error ? reject(error) : resolve(value as Buffer)),
      );
    });

  test("unary, repeated metadata", async () => {
    const md = new grpc.Metadata();
    md.add("x-many", "1");
    md.add("x-many", "2");
    assert.equal(fromBinary(InfoResponseSchema, await info(md)).buildkitVersion?.version, "v2");
    // grpc-js itself joins repeated lines when it sends them.
    assert.deepEqual(seen.join(","), "1,2");
  });
  test("status with details", async () => {
    const md = new grpc.Metadata();
    md.set("x-fail", "1");
    await assert.rejects(info(md), (e: grpc.ServiceError) => {
      assert.equal(e.code, grpc.status.FAILED_PRECONDITION);
      assert.equal(e.details, "näh");
      assert.equal(e.metadata.get("grpc-status-details-bin").length, 1);
      return true;
    });
  });
  test("bidi; the server may end first", async () => {
    const d = definition.session;
    const call = client.makeBidiStreamRequest(
      d.path,
      d.requestSerialize,
      d.responseDeserialize,
      new grpc.Metadata(),
    );
    let n = 0;
    let early: unknown;
    call.on("metadata", (m: grpc.Metadata) => {
      early = m.get("early")[0];
    });
    call.on("data", (b: Buffer) => {
      n += fromBinary(BytesMessageSchema, b).data.length;
      if (n === 8 << 20)
        call.write(toBinary(BytesMessageSchema, create(BytesMessageSchema, { data: new Uint8Array(1) })));
    });
    for (let i = 0; i < 8; i++)
      call.write(toBinary(BytesMessageSchema, create(BytesMessageSchema, { data: new Uint8Array(1 << 20) })));
    const status = await new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
    assert.equal(status.code, 0);
    assert.equal(n, 8 << 20);
    assert.equal(early, "yes");
  });
});

describe("our client, grpc-js server", () => {
  const server = new grpc.Server({ "grpc.max_receive_message_length": 32 << 20 });
  let channel: Channel;
  before(async () => {
    server.addService(definition as unknown as grpc.ServiceDefinition, {
      info: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
        fromBinary(InfoRequestSchema, call.request);
        if (call.metadata.get("x-fail").length > 0) return done({ code: 5, details: "weg: 100%" });
        const md = new grpc.Metadata();
        md.set("after", "1");
        done(
          null,
          bytes(
            toBinary(InfoResponseSchema, create(InfoResponseSchema, { buildkitVersion: { version: "js" } })),
          ),
          md,
        );
      },
      session: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
        call.on("data", (b: Buffer) => call.write(b));
        call.on("end", () => call.end());
      },
    });
    await new Promise<void>((resolve, reject) =>
      server.bindAsync(`unix:${join(dir, "js")}`, grpc.ServerCredentials.createInsecure(), (e) =>
        e ? reject(e) : resolve(),
      ),
    );
    channel = new Channel(dialAddress(`unix://${join(dir, "js")}`));
  });
  after(async () => {
    await channel.close({ force: true });
    server.forceShutdown();
  });
  test("unary and error", async () => {
    let trailers: Metadata | undefined;
    const r = await channel.unary(
      Control.method.info,
      {},
      {
        onTrailers: (m) => {
          trailers = m;
        },
      },
    );
    assert.equal(r.buildkitVersion?.version, "js");
    assert.equal(trailers?.get("after"), "1");
    await assert.rejects(
      channel.unary(Control.method.info, {}, { metadata: { "x-fail": "1" } }),
      (e) => isBuildError(e, "not_found") && e.message === "weg: 100%",
    );
    await assert.rejects(channel.unary(Control.method.diskUsage, {}), { code: "unimplemented" });
  });
  test("bidi", async () => {
    async function* requests() {
      for (let i = 0; i < 10; i++) yield { data: new Uint8Array(2 << 20) };
    }
    let n = 0;
    for await (const m of channel.bidi(Control.method.session, requests())) n += m.data.length;
    assert.equal(n, 20 << 20);
  });
});

test("TLS with client certificates", async () => {
  const run = (...args: string[]): void => void execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
  run(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost",
    "-keyout",
    "k.pem",
    "-out",
    "c.pem",
  );
  const cert = readFileSync(join(dir, "c.pem"));
  const key = readFileSync(join(dir, "k.pem"));
  let name: string | undefined;
  const router = new Router().add(Control, {
    info: (_r, ctx) => {
      name = ctx.peer.certificateName;
      return {};
    },
  });
  await using listener = await listen(router, {
    kind: "tcp",
    host: "127.0.0.1",
    port: 0,
    tls: { cert, key, clientCa: cert },
  });
  await using good = new Channel(
    dialAddress(listener.address, { ca: cert, cert, key, serverName: "localhost" }),
  );
  await good.unary(Control.method.info, {});
  assert.equal(name, "localhost");
  await using bare = new Channel(dialAddress(listener.address, { ca: cert, serverName: "localhost" }));
  await assert.rejects(bare.unary(Control.method.info, {}), { code: "unavailable" });
  await using plain = new Channel(dialAddress(listener.address));
  await assert.rejects(plain.unary(Control.method.info, {}), { code: "unavailable" });
  await good.close();
  await router.close({ timeoutMs: 500 });
});
