import type { CacheKeyStore, CacheLinkInfo } from "../cache/key-store.ts";

/** The parts of a test runner that the suite needs; `node:test` has them. */
export type TestRunner = (name: string, fn: () => void | Promise<void>) => unknown;

/** What a suite is run on. */
export interface KeyStoreFactory {
  /** An empty store; `close` runs after the test. */
  make(): { readonly store: CacheKeyStore; readonly close?: () => void };
}

const link = (over: Partial<CacheLinkInfo> = {}): CacheLinkInfo => ({
  input: 0,
  output: 0,
  digest: "sha256:op",
  selector: "",
  ...over,
});

function same(actual: unknown, expected: unknown): void {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? `${v}n` : v)) ?? "undefined";
  if (text(actual) !== text(expected)) throw new Error(`got ${text(actual)}, expected ${text(expected)}`);
}

const CASES: Readonly<Record<string, (store: CacheKeyStore) => void>> = {
  "knows nothing at first"(store) {
    same(store.exists("a"), false);
    same([...store.ids()], []);
    same(store.results("a"), []);
    same(store.result("a", "r"), undefined);
    same(store.links("a", link()), []);
    same(store.backlinks("a"), []);
    same(store.idsByResult("r"), []);
    store.releaseResult("r");
  },
  "keeps results"(store) {
    const big = 1_700_000_000_123_456_789n;
    store.addResult("a", { id: "r1", createdAtNs: 1n });
    store.addResult("a", { id: "r2", createdAtNs: big });
    store.addResult("b", { id: "r1", createdAtNs: 3n });
    store.addResult("a", { id: "r1", createdAtNs: 4n });
    same(store.exists("a"), true);
    same(
      [...store.results("a")].sort((x, y) => (x.id < y.id ? -1 : 1)),
      [
        { id: "r1", createdAtNs: 4n },
        { id: "r2", createdAtNs: big },
      ],
    );
    same(store.result("b", "r1"), { id: "r1", createdAtNs: 3n });
    same([...store.idsByResult("r1")].sort(), ["a", "b"]);
    same([...store.ids()].sort(), ["a", "b"]);
  },
  "tells links apart by each of their parts"(store) {
    store.addLink("a", link(), "x");
    store.addLink("a", link(), "x");
    store.addLink("a", link(), "y");
    store.addLink("a", link({ input: 1 }), "i");
    store.addLink("a", link({ output: 1 }), "o");
    store.addLink("a", link({ output: -1 }), "m");
    store.addLink("a", link({ digest: "sha256:other" }), "d");
    store.addLink("a", link({ selector: "sha256:sel" }), "s");
    same([...store.links("a", link())].sort(), ["x", "y"]);
    same(store.links("a", link({ input: 1 })), ["i"]);
    same(store.links("a", link({ output: 1 })), ["o"]);
    same(store.links("a", link({ output: -1 })), ["m"]);
    same(store.links("a", link({ digest: "sha256:other" })), ["d"]);
    same(store.links("a", link({ selector: "sha256:sel" })), ["s"]);
    same(store.hasLink("a", link(), "x"), true);
    same(store.hasLink("a", link(), "i"), false);
    same(store.exists("a"), true);
    same(store.exists("x"), false);
  },
  "finds links from their targets"(store) {
    store.addLink("a", link(), "x");
    store.addLink("b", link({ input: 1, selector: "s" }), "x");
    const found = [...store.backlinks("x")].sort((p, q) => (p.id < q.id ? -1 : 1));
    same(
      found.map((b) => [b.id, b.link.input, b.link.output, b.link.digest, b.link.selector]),
      [
        ["a", 0, 0, "sha256:op", ""],
        ["b", 1, 0, "sha256:op", "s"],
      ],
    );
  },
  "removes single links"(store) {
    store.addLink("a", link(), "x");
    store.addLink("a", link(), "y");
    store.removeLink("a", link(), "x");
    store.removeLink("a", link(), "never");
    same(store.links("a", link()), ["y"]);
    same(store.backlinks("x"), []);
    same(store.hasLink("a", link(), "x"), false);
  },
  "releases results, and keys that lead nowhere then"(store) {
    store.addResult("a", { id: "ra", createdAtNs: 1n });
    store.addLink("a", link(), "b");
    store.addResult("b", { id: "rb", createdAtNs: 2n });
    store.addLink("b", link(), "c");
    store.addResult("c", { id: "rc", createdAtNs: 3n });
    store.releaseResult("rb");
    same(store.exists("b"), true); // still leads to c
    store.releaseResult("rc");
    same(store.exists("c"), false);
    same(store.exists("b"), false);
    same(store.links("a", link()), []);
    same(store.exists("a"), true); // has its result
    same([...store.ids()], ["a"]);
    store.releaseResult("ra");
    same([...store.ids()], []);
  },
  "releases a result under all its keys"(store) {
    store.addLink("p", link(), "a");
    store.addResult("a", { id: "r", createdAtNs: 1n });
    store.addResult("b", { id: "r", createdAtNs: 1n });
    store.addResult("b", { id: "other", createdAtNs: 1n });
    store.releaseResult("r");
    same([...store.ids()], ["b"]);
    same(store.idsByResult("r"), []);
    same(store.backlinks("a"), []);
  },
  "cleans up long chains"(store) {
    const length = 3000;
    for (let i = 0; i < length; i++) store.addLink(`k${i}`, link(), `k${i + 1}`);
    store.addResult(`k${length}`, { id: "r", createdAtNs: 1n });
    store.releaseResult("r");
    same([...store.ids()], []);
  },
};

/** What every {@link CacheKeyStore} must do. */
export function keyStoreSuite(test: TestRunner, name: string, factory: KeyStoreFactory): void {
  for (const [title, check] of Object.entries(CASES)) {
    test(`${name}: ${title}`, () => {
      const { store, close } = factory.make();
      try {
        check(store);
      } finally {
        close?.();
      }
    });
  }
}
