import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { RunResult } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

const CAP_MB = 40;

let bed: TestBed;

before(async () => {
  const settings = `
[worker.oci]
  gc = true
  [[worker.oci.gcpolicy]]
    all = true
    maxUsedSpace = ${CAP_MB}000000
`;
  bed = await openTestBed("gc", { settings });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

async function totalMb(): Promise<number> {
  const { stdout, code } = await bed.kiln(["du"]);
  assert.equal(code, 0);
  const [, number = "0", unit = ""] = /Total:\s+([\d.]+)(\w+)/.exec(stdout) ?? [];
  return Number(number) * ({ GB: 1000, MB: 1, kB: 0.001 }[unit] ?? 0);
}

const layer = (mb: number, name: string): string => `RUN head -c ${mb}000000 /dev/urandom > /${name}`;

test("the cap is held while a build runs: what nobody holds goes, what the build needs stays", async () => {
  for (const name of ["a", "b", "c"]) {
    await bed.build([bed.context(name, { Dockerfile: `FROM busybox\n${layer(10, name)}\n` })]);
  }
  const own = ["FROM busybox", layer(6, "one"), layer(6, "two"), layer(6, "three"), ""].join("\n");
  const controller = new AbortController();
  const build = await startBuild("long", `${own}RUN echo go; sleep 1000\n`, controller.signal);
  let total = await totalMb();
  for (let tries = 0; total > CAP_MB && tries < 60; tries++) {
    await sleep(500);
    total = await totalMb();
  }
  assert.ok(total <= CAP_MB, `${total} MB while it runs`);
  assert.ok(total > 18, "the build's own layers are there");
  controller.abort();
  assert.notEqual((await build.ended).code, 0);
  const again = await bed.build([bed.context("long", { Dockerfile: own })]);
  assert.ok((again.match(/^#\d+ CACHED$/gm)?.length ?? 0) >= 3, again);
});

/** Starts a build and waits until a step says `go`. */
async function startBuild(
  name: string,
  dockerfile: string,
  signal: AbortSignal,
): Promise<{ readonly ended: Promise<RunResult> }> {
  const running = Promise.withResolvers<void>();
  let seen = "";
  const ended = bed.kiln(["build", "--progress=plain", bed.context(name, { Dockerfile: dockerfile })], {
    signal,
    onOutput: (part) => {
      seen += part;
      if (/^#\d+ [\d.]+ go$/m.test(seen)) running.resolve();
    },
  });
  ended.then(() => running.reject(new Error(`the build ended:\n${seen}`)), running.reject);
  await running.promise;
  return { ended };
}

test("prune while a build runs takes what it doesn't need; a cancelled step's space is free at once", async () => {
  await bed.build([bed.context("idle", { Dockerfile: `FROM busybox\n${layer(5, "idle")}\n` })]);
  const controller = new AbortController();
  const steps = `FROM busybox\n${layer(7, "kept")}\n${layer(9, "big")} && echo go && sleep 1000\n`;
  const build = await startBuild("cancelled", steps, controller.signal);
  assert.equal((await bed.kiln(["prune", "--all", "--force"])).code, 0);
  const during = await totalMb();
  assert.ok(during >= 7 && during < 12, `${during} MB while it runs`);
  controller.abort();
  assert.notEqual((await build.ended).code, 0);
  assert.equal((await bed.kiln(["prune", "--all", "--force"])).code, 0);
  assert.equal(await totalMb(), 0);
});
