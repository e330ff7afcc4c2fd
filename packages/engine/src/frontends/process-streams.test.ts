import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createDeferred, sleep } from "@kiln/base";
import { ProcessStreams } from "./process-streams.ts";

const ALL = new Set([0, 1, 2]);
const never = new Promise<never>(() => undefined);

describe("ProcessStreams", () => {
  it("makes a flood of input wait for the process", async () => {
    const streams = new ProcessStreams(ALL, async () => undefined);
    let written = 0;
    const flood = (async () => {
      for (; written < 64; written++) await streams.writeInput(Buffer.alloc(256 << 10), never);
    })();
    await sleep(30);
    assert.ok(written < 16, `${written} chunks were taken`);
    streams.io.stdin?.resume();
    await flood;
    assert.equal(written, 64);
  });

  it("lets go of waiting input when the process ends, or everybody has gone", async () => {
    for (const end of ["ended", "abandoned"]) {
      const streams = new ProcessStreams(ALL, async () => undefined);
      const ended = createDeferred<void>();
      const waiting = streams.writeInput(Buffer.alloc(4 << 20), ended.promise);
      if (end === "ended") ended.resolve();
      else streams.abandon();
      await waiting;
    }
  });

  it("makes the process wait for a client that doesn't take its output", async () => {
    const taken = createDeferred<void>();
    let sent = 0;
    const streams = new ProcessStreams(ALL, async (_fd, data) => {
      await taken.promise;
      sent += data.length;
    });
    streams.open();
    const { stdout } = streams.io;
    assert.ok(stdout);
    let accepted = 0;
    while (stdout.write(Buffer.alloc(64 << 10))) {
      assert.ok(accepted++ < 16, "output isn't held back");
    }
    taken.resolve();
    await streams.flush();
    assert.equal(sent, (accepted + 1) * (64 << 10));
  });

  it("keeps output back until it is opened, in order", async () => {
    const sent: string[] = [];
    const streams = new ProcessStreams(ALL, async (fd, data) => {
      sent.push(`${fd}:${Buffer.from(data).toString()}`);
    });
    streams.io.stdout?.write("a");
    streams.io.stdout?.write("b");
    await sleep(5);
    assert.deepEqual(sent, []);
    streams.open();
    await streams.flush();
    assert.deepEqual(sent, ["1:a", "1:b"]);
  });

  it("throws output away once sending has failed", async () => {
    const streams = new ProcessStreams(ALL, async () => {
      throw new Error("gone");
    });
    streams.open();
    streams.io.stderr?.write("lost");
    await streams.flush();
    await streams.inputClosed;
    assert.equal(streams.takesInput, false);
  });

  it("has nothing for descriptors that weren't asked for", async () => {
    const streams = new ProcessStreams(new Set([7]), async () => undefined);
    assert.deepEqual(Object.keys(streams.io), []);
    assert.equal(streams.takesInput, false);
    await streams.inputClosed;
    await streams.flush();
  });
});
