import assert from "node:assert/strict";
import test from "node:test";
import { isBuildError } from "@kiln/base";
import type { CachedResult } from "./cached-result.ts";
import { failedVertex } from "./failure.ts";
import type { Job } from "./job.ts";
import { FakeEngine, type FakeResult } from "./testing/fake-engine.ts";
import { type GraphOp, graph, referenceValue } from "./testing/graph.ts";
import type { Edge, Vertex } from "./types.ts";

const edge = (vertex: Vertex<GraphOp> | undefined, index = 0): Edge<GraphOp> => ({ vertex: vertex!, index });

let jobs = 0;
async function build(engine: FakeEngine, target: Edge<GraphOp>, job = newJob(engine)): Promise<string> {
  try {
    using built = await engine.run(job.build(target));
    assert.equal(built.result.released, false);
    return built.result.value;
  } finally {
    job.discard();
    await engine.settle();
  }
}

async function solved(building: Promise<CachedResult<FakeResult>>): Promise<string> {
  using built = await building;
  return built.result.value;
}

function newJob(engine: FakeEngine): Job<GraphOp, FakeResult> {
  return engine.solver.createJob(`job${++jobs}`);
}

function checkClean(engine: FakeEngine): void {
  assert.deepEqual(engine.solver.load, { vertices: 0, tasks: 0 });
  assert.equal(engine.solver.core.index.size, 0);
  assert.equal(engine.solver.core.openRequests, 0);
  engine.store.drop();
  assert.equal(engine.live, 0);
  assert.deepEqual(engine.warnings, []);
}

test("runs what is needed, once, and then takes it from the cache", async () => {
  const engine = new FakeEngine();
  const { d } = graph("a; b: a; c: a; d: b c");
  assert.equal(await build(engine, edge(d)), referenceValue(edge(d)));
  assert.deepEqual(engine.executed.sort(), ["a", "b", "c", "d"]);
  assert.equal(await build(engine, edge(d)), referenceValue(edge(d)));
  assert.equal(engine.executed.length, 4);
  assert.deepEqual(
    engine.log.filter((l) => l.startsWith("load")),
    [`load main::${referenceValue(edge(d))}`],
  );
  checkClean(engine);
});

test("gives each output of an op that runs once", async () => {
  const engine = new FakeEngine();
  const { b, c } = graph("a; b: a a/1; c: b/1");
  assert.equal(await build(engine, edge(c)), "c(b(a,a')')");
  assert.deepEqual(engine.executed, ["a", "b", "c"]);
  assert.equal(await build(engine, edge(b)), "b(a,a')");
  assert.equal(engine.executed.length, 4); // output 0 of b was never stored
  checkClean(engine);
});

test("matches by content, without making inputs that match by definition", async () => {
  const engine = new FakeEngine();
  const first = graph("base; ctx=one; copy: base ctx~");
  await build(engine, edge(first.copy));
  engine.executed.length = 0;
  const same = (text: string) => ({ ctx: { seeds: [text], values: () => ["one"] } });
  const second = graph("base; ctx=two; copy: base ctx~", same("two"));
  assert.equal(await build(engine, edge(second.copy)), "copy(base,one)");
  assert.deepEqual(engine.executed, ["ctx"]);
  // the definition leads there directly from now on
  engine.executed.length = 0;
  await build(engine, edge(second.copy));
  assert.deepEqual(engine.executed, []);
  checkClean(engine);
});

test("ignores the cache, and what was built on the old result", async () => {
  const engine = new FakeEngine();
  let runs = 0;
  const counted = { values: () => [`run${++runs}`] };
  const text = "src; run: src; use: run; end: use";
  assert.equal(await build(engine, edge(graph(text, { run: counted }).end)), "end(use(run1))");
  const again = graph(text.replace("run:", "run!:"), { run: { ...counted, options: { ignoreCache: true } } });
  // only `run` is asked for, so nothing above it is made anew
  assert.equal(await build(engine, edge(again.run)), "run2");
  engine.executed.length = 0;
  assert.equal(await build(engine, edge(graph(text, { run: counted }).end)), "end(use(run2))");
  assert.deepEqual(engine.executed, ["use", "end"]);
  engine.executed.length = 0;
  assert.equal(await build(engine, edge(again.end)), "end(use(run3))");
  assert.deepEqual(engine.executed, ["run", "use", "end"]);
  checkClean(engine);
});

test("does not mix results of different content under one key", async () => {
  const engine = new FakeEngine();
  let content = "one";
  const changing = { gen: { values: () => [content], options: { ignoreCache: true } } };
  const text = "src; gen: src; copy: gen~";
  await build(engine, edge(graph(text, changing).copy));
  content = "two";
  assert.equal(await build(engine, edge(graph(text, changing).copy)), "copy(two)");
  content = "one";
  engine.executed.length = 0;
  assert.equal(await build(engine, edge(graph(text, changing).copy)), "copy(one)");
  assert.deepEqual(engine.executed, ["gen"]);
  checkClean(engine);
});

test("asks a source for its next key when the first doesn't help", async () => {
  const engine = new FakeEngine();
  const image = (manifest: string) => ({ img: { seeds: [manifest, "config"], variant: manifest } });
  await build(engine, edge(graph("img; run: img", image("m1")).run));
  engine.log.length = 0;
  engine.executed.length = 0;
  await build(engine, edge(graph("img; run: img", image("m1")).run));
  assert.deepEqual(engine.log.slice(0, 3).sort(), ["load main::run(img)", "map img", "map run"]);
  engine.log.length = 0;
  assert.equal(await build(engine, edge(graph("img; run: img", image("m2")).run)), "run(img)");
  assert.equal(engine.log.filter((l) => l === "map img").length, 2);
  assert.deepEqual(engine.executed, []);
  checkClean(engine);
});

test("two jobs share one run; one of them leaving stops nothing", async () => {
  const engine = new FakeEngine();
  const { c } = graph("a; b: a; c: b");
  const [one, two] = [newJob(engine), newJob(engine)];
  const leave = new AbortController();
  const first = one.build(edge(c), { signal: leave.signal });
  const second = two.build(edge(c));
  first.catch(() => undefined);
  let steps = 0;
  await engine.settle(() => {
    if (++steps === 3) leave.abort(new Error("bye"));
  });
  await assert.rejects(first, /bye/);
  (await second).release();
  assert.deepEqual(engine.executed, ["a", "b", "c"]);
  one.discard();
  two.discard();
  await engine.settle();
  checkClean(engine);
});

test("stops work when nobody needs it any more, and can begin again", async () => {
  const engine = new FakeEngine();
  const { b } = graph("a; b: a");
  const job = newJob(engine);
  const leave = new AbortController();
  const first = job.build(edge(b), { signal: leave.signal });
  first.catch(() => undefined);
  let left = false;
  await engine.settle(() => {
    if (left || !engine.log.includes("exec b")) return;
    left = true;
    leave.abort(new Error("bye"));
  });
  await assert.rejects(first, /bye/);
  assert.deepEqual(engine.executed, ["a"]);
  assert.equal(await build(engine, edge(b), job), "b(a)");
  assert.deepEqual(engine.executed, ["a", "b"]);
  checkClean(engine);
});

test("errors are remembered while the vertex is active, and carry its digest", async () => {
  const engine = new FakeEngine({
    fault: (what, name) => {
      if (what === "exec" && name === "bad") throw new Error("no luck");
    },
  });
  const { top, bad } = graph("a; bad: a; other: a; top: bad other");
  const [one, two] = [newJob(engine), newJob(engine)];
  for (const job of [one, two]) {
    const error = await engine.run(job.build(edge(top))).catch((e: unknown) => e);
    assert.match(String(error), /no luck/);
    assert.equal(failedVertex(error), bad!.digest);
  }
  assert.equal(engine.log.filter((l) => l === "exec bad").length, 1);
  one.discard();
  two.discard();
  engine.fault = undefined;
  assert.equal(await build(engine, edge(top)), referenceValue(edge(top)));
  checkClean(engine);
});

test("error texts say in which phase it was", async () => {
  for (const [what, text] of [
    ["map", /^failed to load cache key: boom$/],
    ["content", /^failed to compute cache key: boom$/],
    ["exec", /^boom$/],
  ] as const) {
    const engine = new FakeEngine({
      fault: (w, name) => {
        if (w === what && name === "b") throw new Error("boom");
      },
    });
    const { b } = graph("a; b: a~");
    await assert.rejects(build(engine, edge(b)), (error: Error) => text.test(error.message));
    checkClean(engine);
  }
});

test("falls back to the next record, then to running, when loading fails", async () => {
  const engine = new FakeEngine();
  let runs = 0;
  const text = "a; b!: a";
  const counted = { b: { values: () => [`b${++runs}`], options: { ignoreCache: true } } };
  await build(engine, edge(graph(text, counted).b));
  engine.fault = (what) => {
    if (what === "load") throw new Error("broken");
  };
  assert.equal(await build(engine, edge(graph("a; b: a").b)), "b(a)");
  assert.equal(engine.warnings.length, 2, String(engine.warnings)); // b, then a, which is needed to run b
  assert.match(engine.warnings[0]!, /failed to load cache: broken/);
  engine.warnings.length = 0;
  checkClean(engine);
});

test("takes results from imported caches, and keeps them in its own", async () => {
  const other = new FakeEngine();
  const { c } = graph("a; b: a; c: b");
  await build(other, edge(c));
  const engine = new FakeEngine();
  const remote = engine.remote("remote");
  for (const id of other.cache.keys.ids()) {
    for (const info of other.cache.keys.results(id)) {
      const value = info.id.replace("main::", "");
      using _release = { [Symbol.dispose]: () => undefined };
      const result = engine.result(value);
      remote.source.keys.addResult(id, remote.store.keep(result, info.createdAtNs));
      void engine.hooks.release(result);
    }
    for (const back of other.cache.keys.backlinks(id)) remote.source.keys.addLink(back.id, back.link, id);
  }
  const job = newJob(engine);
  const built = await engine.run(job.build(edge(c), { cacheSources: [remote.source] }));
  assert.equal(built.result.value, "c(b(a))");
  assert.deepEqual(engine.executed, []);
  built.release();
  job.discard();
  remote.store.drop();
  assert.equal(await build(engine, edge(c)), "c(b(a))");
  assert.deepEqual(engine.executed, []);
  checkClean(engine);
  other.store.drop();
});

test("merges equal edges of different vertices", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const engine = new FakeEngine({ seed });
    const one = graph("src; ctx1=ctx; copy: src ctx1~; run: copy");
    const two = graph("src; ctx2=ctx; copy: src ctx2~; run: copy", { src: { variant: "2" } });
    const [j1, j2] = [newJob(engine), newJob(engine)];
    const both = Promise.all([j1.build(edge(one.run)), j2.build(edge(two.run))]);
    for (const built of await engine.run(both)) {
      assert.equal(built.result.value, "run(copy(src,ctx))");
      built.release();
    }
    j1.discard();
    j2.discard();
    await engine.settle();
    assert.equal(engine.executed.filter((n) => n === "run").length, 1, `seed ${seed}`);
    assert.equal(engine.executed.filter((n) => n === "copy").length, 1, `seed ${seed}`);
    checkClean(engine);
  }
});

test("keeps a merged-into vertex while a later job needs it", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const engine = new FakeEngine({ seed });
    const text = "src=s; mid: src; top: mid";
    const one = graph(text);
    const two = graph(text, { src: { variant: "2" } });
    const [j1, j2, j3] = [newJob(engine), newJob(engine), newJob(engine)];
    const builds: Promise<unknown>[] = [];
    const start = (job: Job<GraphOp, FakeResult>, v: Vertex<GraphOp> | undefined) =>
      builds.push(
        job.build(edge(v)).then(
          (b) => b.release(),
          () => undefined,
        ),
      );
    start(j1, one.top);
    start(j2, two.top);
    let steps = 0;
    const last: Promise<string>[] = [];
    await engine.settle(() => {
      steps++;
      if (steps === 2) last.push(solved(j3.build(edge(two.top))));
      if (steps === 3) {
        j1.discard();
        j2.discard();
      }
    });
    assert.equal(await last[0], "top(mid(s))");
    j3.discard();
    await engine.settle();
    await Promise.all(builds);
    checkClean(engine);
  }
});

test("an op can solve more, and its cache export has it too", async () => {
  const engine = new FakeEngine();
  const inner = graph("x; y: x");
  const { outer } = graph("a; outer: a", { outer: { build: edge(inner.y) } });
  const job = newJob(engine);
  const built = await engine.run(job.build(edge(outer)));
  assert.equal(built.result.value, "y(x)");
  assert.equal(built.keys[0]!.companions.length, 1);
  built.release();
  job.discard();
  await engine.settle();
  checkClean(engine);
});

test("jobs: ids are unique, wait for 6 seconds, stay for 10", async () => {
  const engine = new FakeEngine();
  const job = engine.solver.createJob("x");
  assert.throws(() => engine.solver.createJob("x"), /^BuildError: job ID x exists$/);
  assert.equal(await engine.solver.get("x"), job);
  const later = engine.solver.get("y");
  const never = engine.solver.get("z");
  never.catch(() => undefined);
  engine.timers.advance(5_000);
  const y = engine.solver.createJob("y");
  assert.equal(await later, y);
  engine.timers.advance(1_001);
  await assert.rejects(never, (e) => isBuildError(e, "not_found") && e.message === "no such job z");
  job.discard();
  assert.equal(await engine.solver.get("x"), job);
  engine.timers.advance(10_001);
  engine.solver.createJob("x").discard();
  y.discard();
});

test("refuses cycles and bad indexes", async () => {
  const engine = new FakeEngine();
  const { b, a } = graph("a; b: a");
  const loop = { ...b!, inputs: [] as Edge<GraphOp>[] };
  loop.inputs.push({ vertex: loop, index: 0 });
  const job = newJob(engine);
  await assert.rejects(job.build(edge(loop)), /cycle in build graph/);
  await assert.rejects(job.build(edge(a, -1)), /invalid output index -1/);
  await assert.rejects(job.build(edge({ ...b!, inputs: [edge(a, 1.5)] })), /invalid input index 1.5/);
  await assert.rejects(engine.run(job.build(edge(a, 7))), /need 7 index but 2 results received/);
  job.discard();
  await engine.settle();
  checkClean(engine);
});

test("an op that builds itself fails instead of waiting for ever", async () => {
  const engine = new FakeEngine();
  const self: { build?: Edge<GraphOp> } = {};
  const { outer } = graph("a; outer: a");
  const op = {
    ...outer!.op,
    get build() {
      return self.build;
    },
  };
  const loop = { ...outer!, op };
  self.build = edge(graph("a; outer: a; use: outer").use);
  await assert.rejects(build(engine, edge(loop)), /can't be built from itself/);
  checkClean(engine);
});

test("work that solves its own like under another name is not merged into itself", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const engine = new FakeEngine({ seed });
    const inner = graph("a; same=s: a", { same: { variant: "inner" } });
    const { outer } = graph("a; outer=s: a", { outer: { build: edge(inner.same) } });
    assert.equal(await build(engine, edge(outer)), "s(a)");
    checkClean(engine);
  }
});

test("a result that can't be cloned fails those who need it, not the solver", async () => {
  const engine = new FakeEngine();
  const { clone } = engine.hooks;
  Object.assign(engine.hooks, {
    clone: (result: FakeResult) => {
      if (result.value === "b(a)") throw new Error("gone");
      return clone(result);
    },
  });
  const { b, c } = graph("a; b: a; c: a");
  await assert.rejects(build(engine, edge(b)), /gone/);
  assert.equal(await build(engine, edge(c)), "c(a)");
});

test("work that fails because one of its clients left is done again for the others", async () => {
  const engine = new FakeEngine();
  const { b } = graph("a; b: a");
  const [one, two] = [newJob(engine), newJob(engine)];
  const leave = new AbortController();
  const first = one.build(edge(b), { signal: leave.signal });
  first.catch(() => undefined);
  const second = two.build(edge(b));
  let failed = false;
  engine.fault = (what, name) => {
    if (what !== "exec" || name !== "b" || failed) return;
    failed = true;
    throw new Error("no active session");
  };
  await engine.settle(() => {
    if (engine.log.includes("exec b")) leave.abort(new Error("bye"));
  });
  await assert.rejects(first, /bye/);
  assert.equal((await second).result.value, "b(a)");
  (await second).release();
  one.discard();
  two.discard();
  await engine.settle();
  checkClean(engine);
});
