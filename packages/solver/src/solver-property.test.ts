/**
 * Random graphs, built by several jobs in random orders, against what the graph must give when nothing is
 * cached. Every failure names its seed; `SEED=n` replays it.
 */
import assert from "node:assert/strict";
import test from "node:test";
import { BuildError } from "@kiln/base";
import type { CacheSource, PendingCacheSource } from "./cache/cache-source.ts";
import type { Job } from "./job.ts";
import { FakeEngine, type FakeResult, seededRandom } from "./testing/fake-engine.ts";
import { type GraphChange, type GraphOp, graph, referenceValue } from "./testing/graph.ts";
import type { Edge, Vertex } from "./types.ts";

const RUNS = Number(process.env.RUNS ?? 60);
const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: RUNS }, (_, i) => i + 1);

type Random = (n: number) => number;
type Graph = Readonly<Record<string, Vertex<GraphOp>>>;

interface Shape {
  readonly text: string;
  readonly names: readonly string[];
}

/** A graph in the notation of `graph`. Seeds repeat, so that different vertices have equal keys. */
function randomShape(random: Random, size: number, repeat = true): Shape {
  const names: string[] = [];
  const lines: string[] = [];
  for (let i = 0; i < size; i++) {
    const name = `v${i}`;
    const inputs: string[] = [];
    for (let n = Math.min(i, random(4)); n > 0; n--) {
      const from = names[names.length - 1 - random(Math.min(names.length, 5))]!;
      const output = random(4) === 0 ? "/1" : "";
      const selector = random(5) === 0 ? "@sel" : "";
      inputs.push(`${from}${output}${selector}${random(3) === 0 ? "~" : ""}`);
    }
    lines.push(
      `${name}=${repeat && random(3) === 0 ? `same${random(3)}x${inputs.length}` : name}: ${inputs.join(" ")}`,
    );
    names.push(name);
  }
  return { text: lines.join("\n"), names };
}

/** The same graph from another client: other digests, the same work. */
function variantOf(shape: Shape, random: Random, opts: { readonly ignore?: boolean } = {}): Graph {
  const changes: Record<string, GraphChange> = {};
  for (const name of shape.names) {
    const variant = random(2) === 0 ? "" : `variant${random(2)}`;
    const ignoreCache = opts.ignore === true && random(5) === 0;
    changes[name] = ignoreCache ? { variant, options: { ignoreCache } } : { variant };
  }
  return graph(shape.text, changes);
}

function targets(g: Graph, shape: Shape, random: Random): Edge<GraphOp> {
  const vertex = g[shape.names[shape.names.length - 1 - random(3)]!]!;
  return { vertex, index: random(5) === 0 ? 1 : 0 };
}

interface Client {
  readonly job: Job<GraphOp, FakeResult>;
  readonly edge: Edge<GraphOp>;
  readonly cancel: AbortController;
  outcome: string | undefined;
  error: unknown;
  done: Promise<void>;
}

let jobs = 0;
type Sources = readonly (CacheSource<FakeResult> | PendingCacheSource<FakeResult>)[];

function start(engine: FakeEngine, edge: Edge<GraphOp>, sources: Sources = []): Client {
  const job = engine.solver.createJob(`p${++jobs}`);
  const cancel = new AbortController();
  const client: Client = { job, edge, cancel, outcome: undefined, error: undefined, done: Promise.resolve() };
  client.done = job.build(edge, { signal: cancel.signal, cacheSources: sources }).then(
    (built) => {
      client.outcome = built.result.value;
      assert.equal(built.result.released, false);
      built.release();
    },
    (error: unknown) => {
      client.error = error;
    },
  );
  return client;
}

async function finish(engine: FakeEngine, clients: readonly Client[]): Promise<void> {
  await engine.settle();
  await Promise.all(clients.map((client) => client.done));
  for (const client of clients) client.job.discard();
  await engine.settle();
}

function checkClean(engine: FakeEngine): void {
  assert.deepEqual(engine.solver.load, { vertices: 0, tasks: 0 });
  assert.equal(engine.solver.core.index.size, 0);
  assert.equal(engine.solver.core.openRequests, 0);
  engine.store.drop();
  assert.equal(engine.live, 0, "leaked results");
}

function checkAnswered(client: Client): void {
  if (client.error !== undefined) throw client.error;
  assert.equal(client.outcome, referenceValue(client.edge));
}

async function forSeeds(run: (seed: number, random: Random) => Promise<void>): Promise<void> {
  for (const seed of SEEDS) {
    try {
      await run(seed, seededRandom(seed * 7919));
    } catch (error) {
      throw new Error(`SEED=${seed}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
}

test("concurrent jobs get the right results and no vertex runs twice", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(14));
    const g = graph(shape.text);
    const clients = Array.from({ length: 1 + random(3) }, () => start(engine, targets(g, shape, random)));
    await finish(engine, clients);
    clients.forEach(checkAnswered);
    assert.equal(new Set(engine.executed).size, engine.executed.length, `ran twice: ${engine.executed}`);
    // a second time, everything that can be is taken from the cache: only outputs that were never stored run
    engine.executed.length = 0;
    const again = clients.map((client) => start(engine, client.edge));
    await finish(engine, again);
    again.forEach(checkAnswered);
    assert.deepEqual(engine.executed, []);
    assert.deepEqual(engine.warnings, []);
    checkClean(engine);
  });
});

test("equal work of different vertices is merged and stays right", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(14));
    for (let round = 0; round < 3; round++) {
      const clients = Array.from({ length: 1 + random(4) }, () =>
        start(engine, targets(variantOf(shape, random, { ignore: true }), shape, random)),
      );
      await finish(engine, clients);
      clients.forEach(checkAnswered);
    }
    assert.deepEqual(engine.warnings, []);
    checkClean(engine);
  });
});

test("equal work of different vertices runs once", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(14), false);
    const clients = Array.from({ length: 2 + random(4) }, () =>
      start(engine, targets(variantOf(shape, random), shape, random)),
    );
    await finish(engine, clients);
    clients.forEach(checkAnswered);
    assert.equal(new Set(engine.executed).size, engine.executed.length, `ran twice: ${engine.executed}`);
    checkClean(engine);
  });
});

test("jobs that are cancelled or discarded at any point disturb no other and leak nothing", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const clients = Array.from({ length: 3 }, () =>
      start(engine, targets(variantOf(shape, random), shape, random)),
    );
    const leavers = clients.slice(1);
    await engine.settle(() => {
      const leaver = leavers[random(leavers.length * 6)];
      if (!leaver) return;
      if (random(2) === 0) leaver.cancel.abort(new BuildError("canceled", "left"));
      else leaver.job.discard();
      if (random(3) === 0) {
        const late = start(engine, targets(variantOf(shape, random), shape, random));
        clients.push(late);
      }
    });
    await finish(engine, clients);
    for (const client of clients) {
      if (leavers.includes(client) && client.error !== undefined) continue;
      checkAnswered(client);
    }
    assert.deepEqual(engine.warnings, []);
    checkClean(engine);
  });
});

test("failing ops fail those who need them, and only while they are active", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const broken = new Set(shape.names.filter(() => random(6) === 0));
    engine.fault = (what, name) => {
      if (what !== "load" && broken.has(name)) throw new Error(`broken ${name}`);
    };
    const clients = Array.from({ length: 3 }, () =>
      start(engine, targets(variantOf(shape, random), shape, random)),
    );
    await finish(engine, clients);
    for (const client of clients) {
      if (client.error === undefined) checkAnswered(client);
      else assert.match(String(client.error), /broken v/);
    }
    engine.fault = undefined;
    const again = clients.map((client) => start(engine, client.edge));
    await finish(engine, again);
    again.forEach(checkAnswered);
    checkClean(engine);
  });
});

test("caches that fail to load cost time, never the build", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const first = start(engine, targets(variantOf(shape, random), shape, random));
    await finish(engine, [first]);
    engine.fault = (what) => {
      if (what === "load" && random(2) === 0) throw new Error("lost");
    };
    const clients = Array.from({ length: 2 }, () =>
      start(engine, targets(variantOf(shape, random), shape, random)),
    );
    await finish(engine, clients);
    clients.forEach(checkAnswered);
    for (const id of [...engine.store.kept.keys()]) {
      if (random(2) === 0) continue;
      void engine.hooks.release(engine.store.kept.get(id)!);
      engine.store.kept.delete(id);
    }
    const last = start(engine, first.edge);
    await finish(engine, [last]);
    checkAnswered(last);
    checkClean(engine);
  });
});

/** The cache that another client's build has left, as an import of `engine`. */
async function seededRemote(
  engine: FakeEngine,
  edge: Edge<GraphOp>,
  seed: number,
): Promise<ReturnType<FakeEngine["remote"]>> {
  const seeder = new FakeEngine({ seed });
  await finish(seeder, [start(seeder, edge)]);
  const remote = engine.remote(`remote${seed}`);
  const { source, store } = remote;
  for (const id of seeder.cache.keys.ids()) {
    for (const info of seeder.cache.keys.results(id)) {
      const result = engine.result(info.id.replace("main::", ""));
      source.keys.addResult(id, store.keep(result, info.createdAtNs));
      void engine.hooks.release(result);
    }
    for (const { id: from, link } of seeder.cache.keys.backlinks(id)) source.keys.addLink(from, link, id);
  }
  seeder.store.drop();
  return remote;
}

test("imported caches answer, join active builds, and are copied", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const { source, store } = await seededRemote(
      engine,
      targets(variantOf(shape, random), shape, random),
      seed + 1,
    );
    engine.fault = (what) => {
      if (what === "load" && random(4) === 0) throw new Error("lost");
    };
    const clients = Array.from({ length: 3 }, () =>
      start(engine, targets(variantOf(shape, random), shape, random), random(2) === 0 ? [source] : []),
    );
    await finish(engine, clients);
    clients.forEach(checkAnswered);
    store.drop();
    checkClean(engine);
  });
});

/** A cache whose opening is a step like any other; it may turn out that there is none. */
function opening(engine: FakeEngine, source: CacheSource<FakeResult>, exists: boolean): Sources[number] {
  const opened = engine
    .step("open", source.id, new AbortController().signal)
    .then(() => (exists ? source : undefined));
  return { id: source.id, opened };
}

test("caches that are opened late answer as those that were there before, whoever joins or leaves", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const remotes = [
      await seededRemote(engine, targets(variantOf(shape, random), shape, random), seed + 1),
      await seededRemote(engine, targets(variantOf(shape, random), shape, random), seed + 1001),
    ];
    const pending = remotes.map(({ source }) => opening(engine, source, random(4) > 0));
    const begin = (): Client =>
      start(
        engine,
        targets(variantOf(shape, random, { ignore: random(4) === 0 }), shape, random),
        pending.filter(() => random(3) > 0),
      );
    const clients = Array.from({ length: 1 + random(3) }, begin);
    await engine.settle(() => {
      if (random(12) === 0) clients.push(begin());
      if (random(12) === 0) clients[random(clients.length)]!.cancel.abort(new BuildError("canceled", "left"));
    });
    await finish(engine, clients);
    for (const client of clients) {
      if (!client.cancel.signal.aborted || client.error === undefined) checkAnswered(client);
    }
    for (const { store } of remotes) store.drop();
    checkClean(engine);
  });
});

test("nothing runs that a cache has which is still being opened", async () => {
  await forSeeds(async (seed, random) => {
    const engine = new FakeEngine({ seed });
    const shape = randomShape(random, 4 + random(12));
    const edge = targets(graph(shape.text), shape, random);
    const { source, store } = await seededRemote(engine, edge, seed + 1);
    const client = start(engine, edge, [opening(engine, source, true)]);
    await finish(engine, [client]);
    checkAnswered(client);
    assert.deepEqual(engine.executed, []);
    store.drop();
    checkClean(engine);
  });
});

test("the core's work grows with the graph, not faster", async () => {
  const stepsOf = async (make: (n: number) => string, n: number): Promise<number> => {
    const engine = new FakeEngine();
    const g = graph(make(n));
    const vertex = Object.values(g).at(-1)!;
    const before = engine.solver.core.steps;
    const client = start(engine, { vertex, index: 0 });
    await finish(engine, [client]);
    assert.equal(client.error, undefined);
    const steps = engine.solver.core.steps - before;
    checkClean(engine);
    return steps;
  };
  const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
  const value = {
    chain: (n: number) =>
      range(n)
        .map((i) => `v${i}=s: ${i > 0 ? `v${i - 1}` : ""}`)
        .join("\n"),
  };
  const fan = (n: number): string =>
    `${range(n)
      .map((i) => `v${i}=s${i}`)
      .join("\n")}\nend=e: ${range(n)
      .map((i) => `v${i}`)
      .join(" ")}`;
  for (const make of [value.chain, fan]) {
    const [small, large] = [await stepsOf(make, 25), await stepsOf(make, 100)];
    assert.ok(large < small * 5, `${small} steps for 25 vertices, ${large} for 100`);
  }
});

/** Like {@link randomShape}, with vertices that ignore the cache and many inputs that are looked at closely. */
function randomChain(random: Random): Shape {
  const names: string[] = [];
  const lines: string[] = [];
  for (let i = 3 + random(4); i > 0; i--) {
    const name = `v${names.length}`;
    const inputs: string[] = [];
    for (let n = Math.min(names.length, 1 + random(2)); n > 0; n--) {
      const from = names[names.length - 1 - random(Math.min(names.length, 4))]!;
      inputs.push(from + (random(2) === 0 ? "~" : ""));
    }
    lines.push(`${name}${random(4) === 0 ? "!" : ""}: ${inputs.join(" ")}`);
    names.push(name);
  }
  return { text: lines.join("\n"), names };
}

test("nothing is begun, given up and begun again: who will have to run holds on to its inputs", async () => {
  for (let seed = 1; seed <= 500; seed++) {
    const random = seededRandom(seed);
    const shape = randomChain(random);
    const engine = new FakeEngine({ seed });
    const g = graph(shape.text);
    const client = start(engine, { vertex: g[shape.names.at(-1)!]!, index: 0 });
    await finish(engine, [client]);
    checkAnswered(client);
    const begun = engine.log.filter((line) => line.startsWith("exec "));
    assert.equal(new Set(begun).size, begun.length, `seed ${seed}: ${shape.text}\n${engine.log.join("\n")}`);
  }
});
