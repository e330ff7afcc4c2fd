import assert from "node:assert/strict";
import test from "node:test";
import { FakeEngine } from "../testing/fake-engine.ts";
import { graph } from "../testing/graph.ts";
import type { JobProgress } from "./job-progress.ts";
import { ProgressSource } from "./progress-source.ts";
import type { SolveStatus, VertexProgress } from "./status.ts";
import { CANCELED_TEXT, VertexStream } from "./vertex-stream.ts";

const vertex = (digest: string, over: Partial<VertexProgress> = {}): VertexProgress => ({
  digest,
  name: digest,
  inputs: [],
  cached: false,
  ...over,
});

test("inputs of a vertex that starts were cached, all the way down", () => {
  const stream = new VertexStream();
  stream.add(vertex("a"));
  stream.add(vertex("b", { inputs: ["a"] }));
  stream.add(vertex("c", { inputs: ["b"] }));
  assert.deepEqual(
    stream
      .add(vertex("c", { inputs: ["b"], startedMs: 5 }))
      .map((v) => [v.digest, v.cached, v.startedMs, v.completedMs]),
    [
      ["a", true, 5, 5],
      ["b", true, 5, 5],
      ["c", false, 5, undefined],
    ],
  );
  // said once
  assert.equal(stream.add(vertex("d", { inputs: ["b"], startedMs: 6 })).length, 1);
});

test("what never completes was cancelled, unless something cached was made from it", () => {
  const stream = new VertexStream();
  stream.add(vertex("src", { startedMs: 1 }));
  stream.add(vertex("other", { startedMs: 1 }));
  stream.add(vertex("failed", { startedMs: 1, error: "boom" }));
  stream.add(vertex("done", { startedMs: 1, completedMs: 2 }));
  stream.add(vertex("hit", { inputs: ["src"], cached: true, startedMs: 3, completedMs: 3 }));
  // `src` was said to be cached when `hit` started, so it is finished
  assert.deepEqual(
    stream.finish(9).map((v) => [v.digest, v.completedMs, v.error]),
    [
      ["other", 9, CANCELED_TEXT],
      ["failed", 9, "boom"],
    ],
  );
});

async function statusOf(
  run: (engine: FakeEngine) => Promise<void>,
  engine = new FakeEngine(),
): Promise<SolveStatus[]> {
  const job = engine.solver.createJob(`s${Math.random()}`);
  const out: SolveStatus[] = [];
  const reading = (async () => {
    for await (const status of job.status(new AbortController().signal)) out.push(status);
  })();
  await run(Object.assign(engine, { job }));
  job.discard();
  await engine.settle();
  await reading;
  return out;
}

function last(statuses: readonly SolveStatus[]): Record<string, VertexProgress> {
  return Object.fromEntries(statuses.flatMap((s) => s.vertexes).map((v) => [v.name, v]));
}

test("a job's status: announced, started, completed, cached", async () => {
  const engine = new FakeEngine();
  const { c } = graph("a; b: a; c: b");
  for (const cached of [false, true]) {
    const job = engine.solver.createJob(`job-${cached}`);
    const all: SolveStatus[] = [];
    const reading = (async () => {
      for await (const status of job.status(new AbortController().signal)) all.push(status);
    })();
    const built = await engine.run(job.build({ vertex: c!, index: 0 }));
    built.release();
    job.discard();
    await reading;
    const seen = all.flatMap((s) => s.vertexes);
    assert.deepEqual(
      seen.slice(0, 3).map((v) => [v.name, v.startedMs]),
      [
        ["a", undefined],
        ["b", undefined],
        ["c", undefined],
      ],
    );
    const end = last(all);
    for (const name of ["a", "b", "c"]) assert.notEqual(end[name]!.completedMs, undefined, name);
    assert.deepEqual([end.b!.cached, end.c!.cached], [cached, cached]);
    assert.deepEqual(end.c!.inputs, [end.b!.digest]);
  }
  await engine.settle();
});

test("a job that joins late sees everything, and every reader starts at the beginning", async () => {
  const engine = new FakeEngine();
  const { b } = graph("a; b: a");
  const one = engine.solver.createJob("one");
  (await engine.run(one.build({ vertex: b!, index: 0 }))).release();
  const two = engine.solver.createJob("two");
  (await engine.run(two.build({ vertex: b!, index: 0 }))).release();
  one.discard();
  two.discard();
  await engine.settle();
  for (const job of [one, two, two]) {
    const all: SolveStatus[] = [];
    for await (const status of job.status(new AbortController().signal)) all.push(status);
    const end = last(all);
    assert.deepEqual(Object.keys(end), ["a", "b"]);
    assert.deepEqual([end.b!.cached, end.b!.completedMs !== undefined], [false, true]);
  }
});

test("internal vertices, statuses, logs and warnings reach the job", async () => {
  const text = new TextEncoder().encode("hello");
  const all = await statusOf(async (engine) => {
    const { job } = engine as unknown as { job: ReturnType<FakeEngine["solver"]["createJob"]> };
    await job.inVertex({ name: "[internal] load build definition from Dockerfile" }, async (ctx) => {
      ctx.progress.status({ id: "transferring dockerfile:", current: 1, total: 2, startedMs: 1 });
      ctx.progress.status({
        id: "transferring dockerfile:",
        current: 2,
        total: 2,
        startedMs: 1,
        completedMs: 2,
      });
      ctx.progress.log(2, text);
      ctx.progress.warning({ short: "careful", url: "https://example.com" });
      await ctx.inVertex({ name: "inner", id: "some id" }, async () => undefined);
    });
    await assert.rejects(
      job.inVertex({ name: "exporting" }, async () => {
        throw new Error("disk full");
      }),
    );
  });
  const end = last(all);
  const name = "[internal] load build definition from Dockerfile";
  const { digest } = end[name]!;
  assert.match(digest, /^sha256:/);
  assert.equal(end.exporting!.error, "disk full");
  assert.notEqual(end.inner!.completedMs, undefined);
  assert.deepEqual(
    all.flatMap((s) => s.statuses).map((s) => [s.vertex, s.id, s.current]),
    [[digest, "transferring dockerfile:", 2]],
  );
  assert.deepEqual(
    all.flatMap((s) => s.logs).map((l) => [l.vertex, l.stream, new TextDecoder().decode(l.data)]),
    [[digest, 2, "hello"]],
  );
  assert.deepEqual(
    all.flatMap((s) => s.warnings).map((w) => [w.vertex, w.level, w.short]),
    [[digest, 1, "careful"]],
  );
});

test("reading the status stops with its signal", async () => {
  const engine = new FakeEngine();
  const job = engine.solver.createJob("x");
  const stop = new AbortController();
  const next = job.status(stop.signal).next();
  stop.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
  job.discard();
});

test("a vertex that was done runs again while something is fetched for it; one that runs just goes on", () => {
  const source = new ProgressSource({
    digest: "a",
    name: "a",
    inputs: [],
    targets: () => [job],
    now: () => 7,
  });
  const seen: string[] = [];
  const job = {
    meets: () => false,
    push: ({ value }: { value: VertexProgress }) =>
      void seen.push(value.completedMs === undefined ? "runs" : (value.error ?? "done")),
  } as unknown as JobProgress;
  source.start(true);
  source.resume()();
  assert.deepEqual(seen.splice(0), ["runs"]);
  source.complete(true);
  const [first, second] = [source.resume(), source.resume()];
  first();
  second("lost");
  assert.deepEqual(seen, ["done", "runs", "lost"]);
});
