import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ProgressWriter } from "@kiln/solver";
import { type LogLimits, logLimitsFromEnv, StepLog } from "./step-log.ts";

function recorder() {
  const shown: string[] = [];
  const progress: ProgressWriter = {
    resume: () => () => undefined,
    status: () => undefined,
    warning: () => undefined,
    log: (_stream, data) => {
      shown.push(Buffer.from(data).toString());
    },
  };
  return { shown, progress };
}

function stepLog(limits: LogLimits) {
  let nowMs = 0;
  const { shown, progress } = recorder();
  const log = new StepLog(progress, 1, limits, () => nowMs);
  return { log, shown, wait: (ms: number) => (nowMs += ms) };
}

describe("StepLog", () => {
  it("clips at the size, says so once, and shows the end when the step fails", () => {
    const { log, shown, wait } = stepLog({ maxSizeBytes: 4096, maxBytesPerSecond: -1 });
    wait(1);
    log.stream.write("a".repeat(4000));
    log.stream.write("b".repeat(200));
    log.stream.write("the error\n");
    assert.deepEqual(shown.splice(0), [
      "a".repeat(4000),
      `${"b".repeat(96)}\n[output clipped, log limit 4KiB reached]\n`,
    ]);
    log.flushTail();
    assert.deepEqual(shown, [`${"b".repeat(200)}the error\n`]);
  });

  it("goes on when the speed allows it again", () => {
    const { log, shown, wait } = stepLog({ maxSizeBytes: 1 << 20, maxBytesPerSecond: 204800 });
    wait(500);
    log.stream.write("x".repeat(204801));
    wait(1000);
    log.stream.write("y");
    assert.deepEqual(
      shown.map((text) => text.slice(-45)),
      [`${"x".repeat(45)}\n[output clipped, log limit 200KiB/s reached]\n`.slice(-45), "y"],
    );
  });

  it("has no limit when told so", () => {
    const { log, shown } = stepLog({ maxSizeBytes: -1, maxBytesPerSecond: 10 });
    log.stream.write("x".repeat(1 << 20));
    assert.equal(shown.join("").length, 1 << 20);
  });

  it("keeps a bounded tail", () => {
    const { log, shown } = stepLog({ maxSizeBytes: 0, maxBytesPerSecond: -1 });
    for (let i = 0; i < 100; i++) log.stream.write(String(i % 10).repeat(10_000));
    shown.length = 0;
    log.flushTail();
    assert.equal(shown[0]?.length, 256 * 1024);
    assert.ok(shown[0]?.endsWith("9".repeat(10_000)));
  });
});

describe("logLimitsFromEnv", () => {
  it("takes numbers only", () => {
    assert.deepEqual(
      logLimitsFromEnv({ BUILDKIT_STEP_LOG_MAX_SIZE: "-1", BUILDKIT_STEP_LOG_MAX_SPEED: "x" }),
      {
        maxSizeBytes: -1,
        maxBytesPerSecond: 204800,
      },
    );
  });
});
