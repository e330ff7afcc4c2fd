import assert from "node:assert/strict";
import { Duplex, type Readable, type Writable } from "node:stream";
import { describe, it } from "node:test";
import { LLBBridge } from "@kiln/api/gateway";
import { Health } from "@kiln/api/health";
import { BuildError, isBuildError } from "@kiln/base";
import type { Executor, ExitStatus, RunOptions } from "@kiln/executor";
import { Channel } from "@kiln/grpc";
import type { JobBridge } from "../solve/bridge.ts";
import { runFrontend } from "./frontend-process.ts";
import { GatewayBridge } from "./gateway-bridge.ts";

const EXIT: ExitStatus = { code: 0, outOfMemory: false, runtimeError: "", failure: "" };

interface FakeIo {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** An executor whose only program is `frontend`; it is killed like a process. */
function executorOf(frontend: (io: FakeIo) => Promise<number>): Executor & { killed: boolean } {
  const fake = {
    killed: false,
    run: async ({ io, signal }: RunOptions): Promise<ExitStatus> => {
      const { promise: kill, reject } = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => {
        fake.killed = true;
        reject(signal.reason);
      });
      return { ...EXIT, code: await Promise.race([frontend(io as FakeIo), kill]) };
    },
  };
  return fake as unknown as Executor & { killed: boolean };
}

function channelOf({ stdin, stdout }: FakeIo): Channel {
  const stream = new Duplex({
    read: () => undefined,
    write: (chunk, _encoding, done) => void stdout.write(chunk, done),
    destroy: (error, done) => {
      stdin.destroy();
      done(error);
    },
  });
  stdin.on("data", (chunk) => stream.push(chunk));
  stdin.on("end", () => stream.push(null));
  stdin.on("close", () => stream.destroy());
  return Channel.over(stream);
}

async function run(
  frontend: (io: FakeIo) => Promise<number>,
  signal = new AbortController().signal,
): Promise<{ result: Promise<unknown>; executor: { killed: boolean } }> {
  const bridge = { sessionId: "", host: { worker: { id: "w", labels: new Map(), platforms: () => [] } } };
  const gateway = new GatewayBridge(bridge as unknown as JobBridge, { inputs: new Map() });
  const executor = executorOf(frontend);
  const result = runFrontend(
    gateway,
    { executor, container: {} as never, onStderr: () => undefined, firstWordMs: 200 },
    signal,
  ).finally(() => gateway[Symbol.asyncDispose]());
  return { result, executor };
}

async function failure(frontend: (io: FakeIo) => Promise<number>): Promise<BuildError> {
  const { result } = await run(frontend);
  try {
    await result;
  } catch (error) {
    assert.ok(isBuildError(error));
    return error;
  }
  throw new Error("no failure");
}

const returnOk = (channel: Channel) =>
  channel.unary(LLBBridge.method.return, {
    result: { metadata: { key: Buffer.from("value") }, result: { case: "refDeprecated", value: "" } },
  });

describe("runFrontend", { timeout: 30_000 }, () => {
  it("serves the gateway over the streams, and gives what was returned", async () => {
    const { result } = await run(async (io) => {
      const channel = channelOf(io);
      const health = await channel.unary(Health.method.check, {});
      assert.equal(health.status, 1);
      const pong = await channel.unary(LLBBridge.method.ping, {});
      assert.equal(pong.Workers[0]?.ID, "w");
      await returnOk(channel);
      return 0;
    });
    const { metadata } = (await result) as { metadata: Map<string, Uint8Array> };
    assert.equal(Buffer.from(metadata.get("key") ?? []).toString(), "value");
  });

  it("throws the error that was returned, with its details, whatever the process ends with", async () => {
    const detail = { typeUrl: "x", value: Buffer.from("y") };
    const error = await failure(async (io) => {
      const wire = { code: 5, message: "not here", details: [detail] };
      await channelOf(io).unary(LLBBridge.method.return, { error: wire });
      return 3;
    });
    assert.equal(error.message, "not here");
    assert.equal(error.code, "not_found");
    assert.equal(error.wire[0]?.typeUrl, "x");
  });

  it("doesn't take a second result", async () => {
    const { result } = await run(async (io) => {
      const channel = channelOf(io);
      await returnOk(channel);
      await assert.rejects(returnOk(channel), /gateway result is already set/);
      return 0;
    });
    await result;
  });

  it("prefers a crash to a result, and tells what was written to standard error", async () => {
    const error = await failure(async (io) => {
      await returnOk(channelOf(io));
      io.stderr.write("panic: \u001b[31mno memory\n");
      return 2;
    });
    assert.equal(error.message, "exit code: 2: panic: [31mno memory");
    assert.match(Buffer.from(error.wire[0]?.value ?? []).toString(), /"Code":2/);
  });

  it("refuses an end without a result", async () => {
    const error = await failure(async () => 0);
    assert.equal(error.message, "no result for incomplete build");
  });

  it("ends a frontend that writes anything but HTTP/2", async () => {
    const error = await failure(async (io) => {
      io.stdout.write(Buffer.alloc(1000, "GET / HTTP/1.1\r\n"));
      return await new Promise<never>(() => undefined);
    });
    assert.equal(error.message, "frontend grpc server closed unexpectedly");
  });

  it("ends a frontend that never says a word", async () => {
    const error = await failure(() => new Promise<never>(() => undefined));
    assert.equal(error.message, "frontend grpc server closed unexpectedly");
  });

  it("ends a frontend that never answers when the build is given up", async () => {
    const abort = new AbortController();
    const { result, executor } = await run(() => new Promise(() => undefined), abort.signal);
    setTimeout(() => abort.abort(new BuildError("canceled", "context canceled")), 20);
    await assert.rejects(result, /context canceled/);
    assert.equal(executor.killed, true);
  });

  it("keeps little of a flood on standard error", async () => {
    const error = await failure(async (io) => {
      for (let i = 0; i < 200; i++) io.stderr.write(Buffer.alloc(64 << 10, "x"));
      return 1;
    });
    assert.ok(error.message.length < 5000);
  });

  it("answers unknown trees and containers, and lives on", async () => {
    const { result } = await run(async (io) => {
      const channel = channelOf(io);
      await assert.rejects(
        channel.unary(LLBBridge.method.readFile, { Ref: "nope", FilePath: "/x" }),
        /no such ref: nope/,
      );
      await returnOk(channel);
      return 0;
    });
    await result;
  });
});
