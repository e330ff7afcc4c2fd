import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { isBuildError } from "@kiln/base";
import type { RemoteDescriptor } from "../cache/cache-source.ts";
import { digestOfText } from "../digest.ts";
import type { CacheExportResult } from "../export/target.ts";
import { seededRandom } from "../testing/fake-engine.ts";
import { ChainKeyStore } from "./chain-source.ts";
import { CacheChains, type ChainRecord, recordIds } from "./chains.ts";
import {
  type CacheConfig,
  formatCacheConfig,
  formatNanoseconds,
  nanosecondsOf,
  parseCacheConfig,
  parseInlineRecords,
} from "./config.ts";
import { inlineConfig, inlineRecords } from "./inline.ts";
import { marshalChains } from "./marshal.ts";
import { readCacheConfig } from "./parse.ts";

const d = (name: string): string => digestOfText(name);

function blob(name: string): RemoteDescriptor {
  const annotations = { "containerd.io/uncompressed": d(`diff ${name}`) };
  return { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: d(name), size: 1, annotations };
}

function result(layers: string, createdAtNs = 1n): CacheExportResult {
  const remote = { descriptors: layers.split(" ").map(blob), provider: "p" };
  return { remote, createdAtNs, vertex: "", index: 0 };
}

const to = (record: ChainRecord | undefined, selector = "") => ({ record: record!, selector });

function imported(config: CacheConfig, names: string): CacheChains {
  const chains = new CacheChains();
  const descriptors = new Map(names.split(" ").map((name) => [d(name), blob(name)]));
  readCacheConfig(config, { descriptors, provider: "p" }, chains);
  return chains;
}

test("writes the JSON that BuildKit writes", () => {
  const chains = new CacheChains();
  const a = chains.add("sha256:aa", [], []);
  const b = chains.add("sha256:bb", [[to(a)]], [result("l1", 1_700_000_000_120_000_000n)]);
  chains.add("sha256:cc", [[to(b, "sha256:sel")], [to(a)]], [result("l1 l2", 1_700_000_001_000_000_000n)]);
  const [l1, l2] = [d("l1"), d("l2")];
  assert.ok(l1 < l2 === [l1, l2].sort().indexOf(l1) < 1);
  const at = (name: string): number => [l1, l2].sort().indexOf(d(name));
  const layer = (name: string, parent: number): string =>
    parent === 0 ? `{"blob":"${d(name)}"}` : `{"blob":"${d(name)}","parent":${parent}}`;
  const layers = [l1, l2].sort().map((x) => (x === l1 ? layer("l1", -1) : layer("l2", at("l1"))));
  assert.equal(
    formatCacheConfig(marshalChains(chains).config),
    `{"layers":[${layers}],"records":[` +
      `{"digest":"sha256:aa"},` +
      `{"layers":[{"layer":${at("l1")},"createdAt":"2023-11-14T22:13:20.12Z"}],"digest":"sha256:bb","inputs":[[{"link":0}]]},` +
      `{"layers":[{"layer":${at("l2")},"createdAt":"2023-11-14T22:13:21Z"}],"digest":"sha256:cc","inputs":[[{"selector":"sha256:sel","link":1}],[{"link":0}]]}]}`,
  );
});

test("reads what BuildKit writes, and writes it again byte for byte", () => {
  for (const name of ["min", "max"]) {
    const text = readFileSync(new URL(`../../testdata/cache-config/${name}.json`, import.meta.url), "utf8");
    const config = parseCacheConfig(text);
    const chains = new CacheChains();
    const layer = (digest: string): RemoteDescriptor => ({ mediaType: "", digest, size: 0 });
    const descriptors = new Map(config.layers!.map(({ blob: digest }) => [digest!, layer(digest!)]));
    readCacheConfig(config, { descriptors, provider: undefined }, chains);
    assert.equal(formatCacheConfig(marshalChains(chains).config), text);
  }
});

test("reads what it writes, whatever the order of adding", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seededRandom(seed);
    const make = (shuffle: boolean): CacheChains => {
      const pick = seededRandom(seed + 1000);
      const chains = new CacheChains();
      const roots = ["r0", "r1", "r2"].map((r) => [r, chains.add(`sha256:${r}`, [], [])] as const);
      const known = new Map<string, ChainRecord | undefined>(shuffle ? roots.reverse() : roots);
      for (let i = 0; i < 20; i++) {
        const names = [...known.keys()].sort();
        const inputs = Array.from({ length: 1 + pick(2) }, () =>
          Array.from({ length: 1 + pick(2) }, () =>
            to(known.get(names[pick(names.length)]!), ["", "s"][pick(2)]),
          ),
        );
        if (shuffle && random(2) === 0) for (const links of inputs) links.reverse();
        const results = pick(2) === 0 ? [result(`l${pick(4)} l${pick(4)}`, BigInt(i))] : [];
        known.set(`n${i}`, chains.add(`sha256:n${i}`, inputs, results));
      }
      return chains;
    };
    const first = formatCacheConfig(marshalChains(make(false)).config);
    assert.equal(formatCacheConfig(marshalChains(make(true)).config), first, `seed ${seed}`);
    const again = imported(parseCacheConfig(first), "l0 l1 l2 l3");
    assert.equal(formatCacheConfig(marshalChains(again).config), first, `seed ${seed}`);
  }
});

test("takes records with nested links for one, and keeps others apart", () => {
  const chains = new CacheChains();
  const def = chains.add("sha256:def", [], []);
  const one = chains.add("sha256:c1", [], []);
  const two = chains.add("sha256:c2", [], []);
  const first = chains.add("sha256:op", [[to(def), to(one)]], [result("l1")]);
  assert.equal(chains.add("sha256:op", [[to(def)]], []), first);
  assert.equal(chains.add("sha256:op", [[to(def), to(one), to(one, "s")]], [result("l1")]), first);
  assert.equal(first!.results.length, 1);
  const second = chains.add("sha256:op", [[to(def), to(two)]], [result("l2", 2n)]);
  assert.notEqual(second, first);
  assert.equal(chains.records.size, 5);
  assert.equal(chains.add("random:x", [], []), undefined);
  assert.throws(() => chains.add("sha256:op", [[]], []), /empty dependency for sha256:op/);
  assert.throws(
    () => chains.add("sha256:op", [[to(new CacheChains().add("sha256:z", [], []))]], []),
    /not part of/,
  );
});

test("never makes a loop", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed);
    const chains = new CacheChains();
    const records = [chains.add("sha256:r", [], [])!];
    for (let i = 0; i < 25; i++) {
      const links = Array.from({ length: 1 + random(3) }, () => to(records[random(records.length)]));
      const record = chains.add(`sha256:d${random(4)}`, [links], []);
      if (record && !records.includes(record)) records.push(record);
    }
    for (const record of chains.records) {
      for (const links of record.inputs)
        for (const from of links.keys()) assert.ok(from.level < record.level);
    }
    assert.equal(new Set(recordIds(chains).values()).size, chains.records.size);
    const { config } = marshalChains(chains);
    assert.ok(imported(config, "x").records.size <= chains.records.size);
  }
});

test("refuses configs that aren't", () => {
  const bad: readonly (readonly [string, RegExp])[] = [
    ["{", /no JSON/],
    ["[]", /not an object/],
    ['{"records":{}}', /records is no list/],
    ['{"records":[1]}', /record is no object/],
    ['{"layers":[{"blob":1}]}', /blob is no text/],
    ['{"layers":[{"parent":1.5}]}', /parent is no whole number/],
    ['{"records":[{"inputs":[[{"link":"0"}]]}]}', /link is no whole number/],
    ['{"records":[{"layers":[{"layer":0,"createdAt":"yesterday"}]}]}', /createdAt is no time/],
    ['{"records":[{"digest":"sha256:a","inputs":[[{"link":7}]]}]}', /invalid record ID: 7/],
    ['{"records":[{"digest":"sha256:a","inputs":[[{"link":-1}]]}]}', /invalid record ID: -1/],
    ['{"records":[{"digest":"sha256:a","inputs":[[]]}]}', /invalid empty input for record 0/],
    ['{"records":[{"digest":"sha256:a","inputs":[[{"link":0}]]}]}', /invalid looping record/],
    [
      '{"records":[{"digest":"a","inputs":[[{"link":1}]]},{"digest":"b","inputs":[[{"link":0}]]}]}',
      /looping record/,
    ],
    [
      '{"layers":[{"blob":"x","parent":0}],"records":[{"digest":"a","layers":[{"layer":0}]}]}',
      /looping layer/,
    ],
    ['{"records":[{"digest":"a","layers":[{"layer":3}]}]}', /invalid layer index 3/],
    [
      '{"layers":[{"blob":"x","parent":9}],"records":[{"digest":"a","layers":[{"layer":0}]}]}',
      /invalid layer index 9/,
    ],
    ['{"records":[{"digest":"a","chains":[{"layers":[5]}]}]}', /invalid layer index 5/],
  ];
  for (const [text, message] of bad) {
    assert.throws(
      () => imported(parseCacheConfig(text), "x"),
      (error) => isBuildError(error, "invalid_argument") && message.test(error.message),
      text,
    );
  }
  assert.equal(imported(parseCacheConfig("{}"), "x").records.size, 0);
});

test("reads deep configs without recursion, and with a parent of 0 left out", () => {
  const n = 20_000;
  const records = Array.from({ length: n }, (_, i) =>
    i === n - 1 ? { digest: "sha256:r" } : { digest: `sha256:d${i}`, inputs: [[{ link: i + 1 }]] },
  );
  assert.equal(imported({ records }, "x").records.size, n);
  const chains = imported(
    {
      layers: [{ blob: d("l0"), parent: -1 }, { blob: d("l1") }],
      records: [{ digest: "a", layers: [{ layer: 1, createdAt: "2024-01-01T00:00:00Z" }] }],
    },
    "l0 l1",
  );
  const [record] = [...chains.records];
  assert.deepEqual(
    record!.results[0]!.remote.descriptors.map((x) => x.digest),
    [d("l0"), d("l1")],
  );
});

test("leaves out results whose layers are missing", () => {
  const chains = new CacheChains();
  chains.add("sha256:a", [], [result("l1 l2")]);
  const { config } = marshalChains(chains);
  assert.equal([...imported(config, "l2").records][0]!.results.length, 0);
  const { config: none } = marshalChains(chains, {
    isMissing: (descriptor) => descriptor.digest === d("l1"),
  });
  assert.equal(formatCacheConfig(none), '{"records":[{"digest":"sha256:a"}]}');
});

test("times keep their nanoseconds", () => {
  for (const time of [
    "2024-05-06T07:08:09.123456789Z",
    "2024-05-06T07:08:09Z",
    "2024-05-06T07:08:09.1Z",
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59.5Z",
  ]) {
    assert.equal(formatNanoseconds(nanosecondsOf(time)), time);
  }
  assert.equal(formatNanoseconds(nanosecondsOf("2024-05-06T07:08:09.5+02:00")), "2024-05-06T05:08:09.5Z");
});

test("inline: numbers are places in the image, others become chains", () => {
  const chains = new CacheChains();
  const root = chains.add("sha256:root", [], []);
  const a = chains.add("sha256:a", [[to(root)]], [result("l1", 5_000_000_000n)]);
  const b = chains.add("sha256:b", [[to(a)]], [result("l1 l2", 6_000_000_000n)]);
  chains.add("sha256:c", [[to(a)]], [result("l3")]); // not from the bottom
  chains.add("sha256:x", [[to(b)]], [result("l1 other")]); // not in the image
  const image = [d("l1"), d("diff l2"), d("l3")];
  const records = inlineRecords(chains, image)!;
  const by = new Map(records.map((r) => [r.digest, r]));
  assert.deepEqual(by.get("sha256:a")!.layers, [{ layer: 0, createdAt: "1970-01-01T00:00:05Z" }]);
  assert.deepEqual(by.get("sha256:b")!.layers, [{ layer: 1, createdAt: "1970-01-01T00:00:06Z" }]);
  assert.deepEqual(by.get("sha256:c")!.chains, [{ layers: [2], createdAt: "0001-01-01T00:00:00Z" }]);
  assert.deepEqual([by.get("sha256:x")!.layers, by.get("sha256:x")!.chains], [undefined, undefined]);
  const back = imported(
    inlineConfig(parseInlineRecords(JSON.stringify(records)), [d("l1"), d("l2"), d("l3")]),
    "l1 l2 l3",
  );
  const blobsOf = (digest: string) =>
    [...back.records].find((r) => r.digest === digest)!.results[0]?.remote.descriptors.map((x) => x.digest);
  assert.deepEqual(blobsOf("sha256:b"), [d("l1"), d("l2")]);
  assert.deepEqual(blobsOf("sha256:c"), [d("l3")]);
  assert.equal(inlineRecords(chains, [d("nothing")]), undefined);
});

test("an imported cache answers in the solver's terms", () => {
  const chains = new CacheChains();
  const op = d("op");
  const root = chains.add(digestOfText(`${d("src")}@0`), [], [])!;
  chains.add(digestOfText(`${op}@1`), [[to(root, "sel")]], [result("l1", 1n), result("l2", 2n)]);
  const store = new ChainKeyStore(chains);
  const [id] = store.links(root.digest, { input: 0, output: 1, digest: op, selector: "sel" });
  assert.ok(id !== undefined && store.exists(id));
  assert.deepEqual(store.links(root.digest, { input: 0, output: 0, digest: op, selector: "sel" }), []);
  assert.deepEqual(
    store.results(id).map((r) => r.createdAtNs),
    [2n, 1n],
  );
  const [back] = store.backlinks(id);
  assert.equal(store.recordDigest(back!.link), digestOfText(`${op}@1`));
  assert.deepEqual(store.idsByResult(store.results(id)[0]!.id), [id]);
});
