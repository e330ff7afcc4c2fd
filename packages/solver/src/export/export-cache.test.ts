import assert from "node:assert/strict";
import test from "node:test";
import type { CacheLoadContext } from "../cache/cache-source.ts";
import type { CachedResult } from "../cached-result.ts";
import { digestOfText, rootKey } from "../digest.ts";
import { chainSource } from "../remote-cache/chain-source.ts";
import { CacheChains } from "../remote-cache/chains.ts";
import { formatCacheConfig, parseCacheConfig } from "../remote-cache/config.ts";
import { marshalChains } from "../remote-cache/marshal.ts";
import { readCacheConfig } from "../remote-cache/parse.ts";
import { FakeEngine, type FakeResult } from "../testing/fake-engine.ts";
import { type GraphChange, type GraphOp, graph } from "../testing/graph.ts";
import type { Vertex } from "../types.ts";
import { type CacheExportMode, exportCache } from "./export-cache.ts";

interface Built {
  readonly cached: CachedResult<FakeResult>;
  discard(): void;
}

let jobs = 0;
async function build(engine: FakeEngine, vertex: Vertex<GraphOp> | undefined): Promise<Built> {
  const job = engine.solver.createJob(`e${++jobs}`);
  const cached = await engine.run(job.build({ vertex: vertex!, index: 0 }));
  return {
    cached,
    discard: () => {
      cached.release();
      job.discard();
    },
  };
}

function contextOf(): CacheLoadContext {
  return {
    signal: new AbortController().signal,
    vertexDigest: "",
    sessions: { ids: () => [] },
    progress: {
      resume: () => () => undefined,
      status: () => undefined,
      log: () => undefined,
      warning: () => undefined,
    },
    cacheOption: () => undefined,
    cleanup: () => undefined,
  };
}

interface ExportOpts {
  readonly mode?: CacheExportMode;
  readonly ignoreBacklinks?: boolean;
  readonly exportRoots?: boolean;
  /** Values whose layers exist without being made. */
  readonly ready?: (value: string) => boolean;
}

async function exported(engine: FakeEngine, built: Built, opts: ExportOpts = {}): Promise<CacheChains> {
  const chains = new CacheChains();
  const ready = opts.ready ?? (() => false);
  engine.store.remotes = async (info) => {
    const value = info.id.replace("main::", "");
    return ready(value) ? [remoteOf(value)] : [];
  };
  const writing = exportCache(built.cached.keys, chains, {
    mode: opts.mode ?? "max",
    ctx: contextOf(),
    release: engine.hooks.release,
    resolveRemotes: async (result) => [remoteOf(result.value)],
    ignoreBacklinks: opts.ignoreBacklinks,
    exportRoots: opts.exportRoots,
  });
  await engine.run(writing);
  return chains;
}

/** One layer per op on the way along first inputs, lowest first. */
function remoteOf(value: string) {
  const layers: string[] = [];
  for (let at = value; at !== ""; at = /^[^(]*\(([^,)]*.*?)\)'?$/.exec(at)?.[1] ?? "") layers.unshift(at);
  return {
    descriptors: layers.map((layer) => ({
      mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      digest: digestOfText(layer),
      size: layer.length,
    })),
    provider: undefined,
  };
}

const keyOf = (seed: string, output = 0): string => rootKey(digestOfText(seed), output);

test("max exports every result but those of sources", async () => {
  const engine = new FakeEngine();
  const built = await build(engine, graph("a; b: a; c: b@sel").c);
  const { config } = marshalChains(await exported(engine, built, { ignoreBacklinks: true }));
  const byDigest = new Map(config.records!.map((r, i) => [r.digest, { ...r, i }]));
  assert.deepEqual([...byDigest.keys()].sort(), [keyOf("a"), keyOf("b"), keyOf("c")].sort());
  assert.equal(byDigest.get(keyOf("a"))!.layers, undefined);
  assert.equal(byDigest.get(keyOf("a"))!.inputs, undefined);
  assert.deepEqual(byDigest.get(keyOf("b"))!.inputs, [[{ link: byDigest.get(keyOf("a"))!.i }]]);
  assert.deepEqual(byDigest.get(keyOf("c"))!.inputs, [
    [{ selector: "sel", link: byDigest.get(keyOf("b"))!.i }],
  ]);
  assert.equal(config.layers!.length, 3);
  const top = config.layers![byDigest.get(keyOf("c"))!.layers![0]!.layer]!;
  assert.equal(top.blob, digestOfText("c(b(a))"));
  built.discard();
});

test("min exports the topmost result, and below it what is there already", async () => {
  const engine = new FakeEngine();
  const built = await build(engine, graph("a; b: a; c: b; d: c").d);
  const chains = await exported(engine, built, { mode: "min", ready: (value) => value === "b(a)" });
  const withResults = [...chains.records].filter((r) => r.results.length > 0).map((r) => r.digest);
  assert.deepEqual(withResults.sort(), [keyOf("d"), keyOf("b")].sort());
  built.discard();
});

test("exportCache=false keeps a result out; the next below takes its place in min", async () => {
  const engine = new FakeEngine();
  const change: Record<string, GraphChange> = { d: { options: { exportCache: false } } };
  const built = await build(engine, graph("a; b: a; c: b; d: c", change).d);
  const chains = await exported(engine, built, { mode: "min" });
  const withResults = [...chains.records].filter((r) => r.results.length > 0).map((r) => r.digest);
  assert.deepEqual(withResults, [keyOf("c")]);
  built.discard();
});

test("results of sources are exported when asked for, under all their keys", async () => {
  const engine = new FakeEngine();
  const built = await build(engine, graph("img; run: img", { img: { seeds: ["manifest", "config"] } }).run);
  const chains = await exported(engine, built, { exportRoots: true });
  const roots = [...chains.records].filter((r) => r.inputs.length === 0);
  assert.deepEqual(
    roots.map((r) => [r.digest, r.results.length]).sort(),
    [
      [keyOf("config"), 1],
      [keyOf("manifest"), 1],
    ].sort(),
  );
  const run = [...chains.records].find((r) => r.digest === keyOf("run"))!;
  assert.equal(run.inputs[0]!.size, 2);
  built.discard();
});

test("records that depend on a random source are left out, unless content leads to them", async () => {
  const engine = new FakeEngine();
  const ctx: Record<string, GraphChange> = { ctx: { seeds: ["random:abc"] } };
  const built = await build(engine, graph("base; ctx; copy: base ctx~; bad: ctx; end: copy bad", ctx).end);
  const chains = await exported(engine, built);
  const digests = [...chains.records].map((r) => r.digest);
  assert.ok(digests.includes(keyOf("copy")));
  assert.ok(!digests.includes(keyOf("bad")));
  assert.ok(!digests.includes(keyOf("end")));
  const copy = [...chains.records].find((r) => r.digest === keyOf("copy"))!;
  const content = [...copy.inputs[1]!.keys()];
  assert.deepEqual(
    content.map((r) => r.digest),
    [rootKey(digestOfText("content of ctx"), -1)],
  );
  built.discard();
});

test("other ways to the same result are exported too, unless they are to be ignored", async () => {
  const engine = new FakeEngine();
  const same = (seed: string): Record<string, GraphChange> => ({
    ctx: { seeds: [seed], values: () => ["ctx"] },
  });
  (await build(engine, graph("base; ctx; copy: base ctx~", same("one")).copy)).discard();
  const built = await build(engine, graph("base; ctx; copy: base ctx~", same("two")).copy);
  for (const ignoreBacklinks of [true, false]) {
    const chains = await exported(engine, built, { ignoreBacklinks });
    const copies = [...chains.records].filter((r) => r.digest === keyOf("copy"));
    assert.equal(copies.length, 1);
    const names = [...copies[0]!.inputs[1]!.keys()].map((r) => r.digest);
    assert.equal(names.includes(keyOf("one")), !ignoreBacklinks);
    assert.ok(names.includes(keyOf("two")));
  }
  built.discard();
});

test("what is exported answers elsewhere, through JSON, and is exported again the same", async () => {
  const engine = new FakeEngine();
  const text = "base; ctx; copy: base ctx~; run: copy; gen: run/1; end: gen run";
  const built = await build(engine, graph(text).end);
  const first = marshalChains(await exported(engine, built));
  built.discard();

  const other = new FakeEngine();
  const chains = new CacheChains();
  const descriptors = new Map(
    [...first.blobs.values()].map(({ descriptor }) => [descriptor.digest, descriptor]),
  );
  readCacheConfig(
    parseCacheConfig(formatCacheConfig(first.config)),
    { descriptors, provider: "there" },
    chains,
  );
  const values = new Map(
    ["copy(base,ctx)", "run(copy(base,ctx))", "end(gen(run(copy(base,ctx))'),run(copy(base,ctx)))"].map(
      (v) => [remoteOf(v).descriptors.at(-1)!.digest, v],
    ),
  );
  const source = chainSource<FakeResult>("remote", chains, {
    fromRemote: async (remote) => {
      assert.equal(remote.provider, "there");
      return other.result(values.get(remote.descriptors.at(-1)!.digest) ?? "?");
    },
  });
  const job = other.solver.createJob("import");
  const again = await other.run(
    job.build({ vertex: graph(text).end!, index: 0 }, { cacheSources: [source] }),
  );
  assert.equal(again.result.value, "end(gen(run(copy(base,ctx))'),run(copy(base,ctx)))");
  assert.deepEqual(other.executed, []);
  const second = marshalChains(
    await exported(other, { cached: again, discard: () => undefined }, { ready: () => false }),
  );
  assert.deepEqual(
    second.config.records!.map((r) => r.digest),
    first.config.records!.map((r) => r.digest),
  );
  again.release();
  job.discard();
  await other.settle();
  other.store.drop();
  assert.equal(other.live, 0);
});

test("exporting is linear in the graph", async () => {
  const engine = new FakeEngine();
  const n = 150;
  const lines = Array.from({ length: n }, (_, i) =>
    i === 0 ? "v0" : `v${i}: v${i - 1}${i > 1 ? ` v${i - 2}` : ""}`,
  );
  const values = Object.fromEntries(lines.map((_, i) => [`v${i}`, { values: () => [`v${i}`, ""] }]));
  const built = await build(engine, graph(lines.join("\n"), values)[`v${n - 1}`]);
  const chains = await exported(engine, built);
  assert.equal(chains.records.size, n);
  assert.equal(chains.visited, 0);
  built.discard();
});
