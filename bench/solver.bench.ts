/**
 * Solver overhead per vertex: graphs whose ops do nothing, cold, cached and exported. Prints a table.
 * Run with `node bench/solver.bench.ts [vertices]`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type CacheKeyStore,
  type CacheLoadContext,
  digestOfText,
  exportCache,
  MemoryKeyStore,
  Solver,
  type Vertex,
} from "@kiln/solver";
import { CacheChains, formatCacheConfig, marshalChains } from "@kiln/solver/remote-cache";
import { Database } from "@kiln/store";
import { SqliteKeyStore } from "../packages/engine/src/worker/sqlite-key-store.ts";

type Op = string;

function vertex(name: string, inputs: readonly Vertex<Op>[]): Vertex<Op> {
  const edges = inputs.map((input) => ({ vertex: input, index: 0 }));
  return { digest: digestOfText(name), name, inputs: edges, options: {}, op: digestOfText(`op ${name}`) };
}

const SHAPES: Readonly<Record<string, (n: number) => Vertex<Op>>> = {
  chain(n) {
    let last = vertex("v0", []);
    for (let i = 1; i < n; i++) last = vertex(`v${i}`, [last]);
    return last;
  },
  fan(n) {
    const inputs = Array.from({ length: n - 1 }, (_, i) => vertex(`v${i}`, []));
    return vertex("end", inputs);
  },
  lattice(n) {
    const width = 10;
    let row: Vertex<Op>[] = [];
    for (let y = 0; y < n / width; y++) {
      const below = row;
      const inputs = (x: number): Vertex<Op>[] =>
        below.length === 0 ? [] : [0, 1, 2].map((k) => below[(x + k) % width] as Vertex<Op>);
      row = Array.from({ length: width }, (_, x) => vertex(`v${y} ${x}`, inputs(x)));
    }
    return vertex("end", row);
  },
};

function makeSolver(keys: CacheKeyStore): Solver<Op, string> {
  const kept = new Set<string>();
  return new Solver<Op, string>({
    resolveOp: (v) => ({
      acquire: async () => () => undefined,
      cacheMap: async () => ({ cacheMap: { digest: v.op, deps: v.inputs.map(() => ({})) }, done: true }),
      exec: async () => [v.digest],
    }),
    cache: {
      id: "main",
      keys,
      results: {
        exists: (id) => kept.has(id),
        load: async (info) => info.id,
        save: (id, createdAtNs) => {
          kept.add(id);
          return { id, createdAtNs };
        },
      },
    },
    results: { id: (r) => r, clone: (r) => r, release: () => undefined },
  });
}

const CTX: CacheLoadContext = {
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

async function measure(keys: CacheKeyStore, target: Vertex<Op>): Promise<number[]> {
  const solver = makeSolver(keys);
  const times: number[] = [];
  for (const round of ["cold", "cached"]) {
    const job = solver.createJob(round);
    const start = performance.now();
    const built = await job.build({ vertex: target, index: 0 });
    times.push(performance.now() - start);
    if (round === "cached") {
      const exporting = performance.now();
      const chains = new CacheChains();
      await exportCache(built.keys, chains, {
        mode: "max",
        ctx: CTX,
        release: () => undefined,
        resolveRemotes: async (digest) => [
          { provider: undefined, descriptors: [{ mediaType: "", digest, size: 1 }] },
        ],
      });
      formatCacheConfig(marshalChains(chains).config);
      times.push(performance.now() - exporting);
    }
    built.release();
    job.discard();
  }
  return times;
}

const vertices = Number(process.argv[2] ?? 5000);
const dir = mkdtempSync(join(tmpdir(), "kiln-bench-"));
try {
  console.log(`${vertices} vertices, microseconds per vertex`);
  for (const [name, make] of Object.entries(SHAPES)) {
    for (const kind of ["memory", "sqlite"]) {
      using db = new Database(join(dir, `${name}-${kind}.db`), { synchronous: "normal" });
      const times = await measure(
        kind === "memory" ? new MemoryKeyStore() : new SqliteKeyStore(db),
        make(vertices),
      );
      const [cold, cached, exported] = times.map((ms) => ((ms * 1000) / vertices).toFixed(0).padStart(6));
      console.log(`${name.padEnd(8)} ${kind.padEnd(7)} cold ${cold}  cached ${cached}  export ${exported}`);
    }
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
