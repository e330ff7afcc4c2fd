/**
 * Writes what is known of how a result came about into a cache export target.
 *
 * 1. Collect: all keys below the result's. In `min` mode what lies below a key that has a transferable
 *    result is exported only as far as it has one too.
 * 2. Resolve: find or make the transferable form of each key's best record, several at a time.
 * 3. Add, inputs first: each key becomes one record. A record without a link for one of its inputs is
 *    left out, and so is what needs it.
 *
 * Every key and every stored link is looked at once: the time is linear in their number.
 */
import { isCanceled, mapLimited } from "@kiln/base";
import type { CacheKey, CacheKeyLink, CacheRecord } from "../cache/cache-key.ts";
import { postOrder } from "../cache/cache-query.ts";
import type { CacheLoadContext, CacheSource, Remote } from "../cache/cache-source.ts";
import { rootKey } from "../digest.ts";
import type { CacheExportLink, CacheExportResult, CacheExportTarget } from "./target.ts";

/**
 * How much is exported: the topmost result and what is transferable already below it, everything, or only
 * what is transferable already.
 */
export type CacheExportMode = "min" | "max" | "remoteOnly";

/** Options of {@link exportCache}. */
export interface CacheExportOptions<TResult> {
  readonly mode: CacheExportMode;
  /** Makes a result transferable: compresses it, for example. The result is lent. */
  readonly resolveRemotes: (result: TResult) => Promise<readonly Remote[]>;
  /** For loading results. */
  readonly ctx: CacheLoadContext;
  readonly release: (result: TResult) => void | Promise<void>;
  /** Given: all forms that it allows are exported, not only the first. */
  readonly compression?: unknown;
  /** Also export the results of vertices without inputs. */
  readonly exportRoots?: boolean | undefined;
  /** Leave out other ways to the same results, learnt from other builds. */
  readonly ignoreBacklinks?: boolean | undefined;
  /** How many results are made transferable at a time. */
  readonly concurrency?: number | undefined;
}

const DEFAULT_CONCURRENCY = 4;
/** Most keys of other builds in one export. */
const MAX_BACKLINK_KEYS = 20_000;

/** Exports what leads to `keys`; returns their records. */
export async function exportCache<TResult, TRecord>(
  keys: readonly CacheKey<TResult>[],
  target: CacheExportTarget<TRecord>,
  opts: CacheExportOptions<TResult>,
): Promise<TRecord[]> {
  const results = await resolveAll(keys, opts);
  const writer = new RecordWriter(target, results, opts);
  const out = new Set<TRecord>();
  for (const key of keys) for (const record of writer.write(key)) out.add(record);
  return [...out];
}

/** What is to be written for a key. */
interface KeyResults<TResult> {
  readonly results: readonly CacheExportResult[];
  readonly hasRemote: boolean;
  readonly record: CacheRecord<TResult> | undefined;
}

type ResultsByKey<TResult> = Map<CacheKey<TResult>, KeyResults<TResult>>;

async function resolveAll<TResult>(
  keys: readonly CacheKey<TResult>[],
  opts: CacheExportOptions<TResult>,
): Promise<ResultsByKey<TResult>> {
  const out: ResultsByKey<TResult> = new Map();
  const resolveThese = async (wave: readonly CacheKey<TResult>[], mode: CacheExportMode): Promise<void> => {
    const limit = opts.concurrency ?? DEFAULT_CONCURRENCY;
    const done = await mapLimited(wave, limit, (key) => resolveKey(key, mode, opts));
    for (const [i, key] of wave.entries()) out.set(key, done[i]!);
  };
  if (opts.mode !== "min") {
    await resolveThese(reachable(keys), opts.mode);
    return out;
  }
  const below: CacheKey<TResult>[] = [];
  for (let wave = unseen(keys, out); wave.length > 0; ) {
    await resolveThese(wave, "min");
    const next: CacheKey<TResult>[] = [];
    for (const key of wave) (out.get(key)!.hasRemote ? below : next).push(...inputsOf(key));
    wave = unseen(next, out);
  }
  await resolveThese(
    reachable(below).filter((key) => !out.has(key)),
    "remoteOnly",
  );
  return out;
}

function inputsOf<TResult>(key: CacheKey<TResult>): CacheKey<TResult>[] {
  return [...key.deps.flat(), ...key.alternates.map((alternate) => alternate.link)].map((link) => link.key);
}

function childrenOf<TResult>(key: CacheKey<TResult>): CacheKey<TResult>[] {
  return [...inputsOf(key), ...key.companions];
}

function reachable<TResult>(keys: readonly CacheKey<TResult>[]): CacheKey<TResult>[] {
  const seen = new Set(keys);
  for (const key of seen) for (const child of childrenOf(key)) seen.add(child);
  return [...seen];
}

/** `keys` and their companions that are not in `seen` yet, once each. */
function unseen<TResult>(
  keys: readonly CacheKey<TResult>[],
  seen: ReadonlyMap<CacheKey<TResult>, unknown>,
): CacheKey<TResult>[] {
  const out = new Set(keys.filter((key) => !seen.has(key)));
  for (const key of out) for (const other of key.companions) if (!seen.has(other)) out.add(other);
  return [...out];
}

async function resolveKey<TResult>(
  key: CacheKey<TResult>,
  mode: CacheExportMode,
  opts: CacheExportOptions<TResult>,
): Promise<KeyResults<TResult>> {
  opts.ctx.signal.throwIfAborted();
  const wanted = key.exportCache !== false && (key.deps.length > 0 || opts.exportRoots === true);
  const record = wanted ? firstStored(key) : undefined;
  if (!record) return { results: [], hasRemote: false, record };
  const remotes = await remotesOf(record, mode, opts);
  const { vertex, output } = key;
  const results = (opts.compression === undefined ? remotes.slice(0, 1) : remotes).map((remote) => ({
    remote,
    createdAtNs: record.createdAtNs,
    vertex,
    index: output,
  }));
  return { results, hasRemote: results.length > 0, record };
}

/** The best record that its cache still has. */
function firstStored<TResult>(key: CacheKey<TResult>): CacheRecord<TResult> | undefined {
  return key.records.find((record) => {
    const id = record.key.ids.get(record.source);
    return id !== undefined && record.source.keys.result(id, record.id) !== undefined;
  });
}

async function remotesOf<TResult>(
  record: CacheRecord<TResult>,
  mode: CacheExportMode,
  opts: CacheExportOptions<TResult>,
): Promise<readonly Remote[]> {
  const { source } = record;
  const known = (await source.results.remotes?.(record, opts.compression)) ?? [];
  if (mode === "remoteOnly" || (known.length > 0 && opts.compression === undefined)) return known;
  const { origin } = record.key;
  const ctx: CacheLoadContext = origin
    ? { ...opts.ctx, cacheOption: (name, ancestors = false) => origin.cacheOption(name, ancestors) }
    : opts.ctx;
  let result: TResult;
  try {
    result = await source.results.load(record, ctx);
  } catch (error) {
    if (isCanceled(error) || opts.ctx.signal.aborted) throw error;
    return known; // gone since; its record is exported without a result
  }
  try {
    return withoutDoubles([...known, ...(await opts.resolveRemotes(result))]);
  } finally {
    await opts.release(result);
  }
}

function withoutDoubles(remotes: readonly Remote[]): Remote[] {
  const byDigests = new Map<string, Remote>();
  for (const remote of remotes) {
    const name = remote.descriptors.map((descriptor) => descriptor.digest).join(" ");
    if (!byDigests.has(name)) byDigests.set(name, remote);
  }
  return [...byDigests.values()];
}

class RecordWriter<TResult, TRecord> {
  readonly #target: CacheExportTarget<TRecord>;
  readonly #results: ResultsByKey<TResult>;
  readonly #opts: CacheExportOptions<TResult>;
  readonly #written = new Map<CacheKey<TResult>, TRecord | undefined>();
  readonly #stored = new Map<CacheSource<TResult>, Map<string, readonly TRecord[]>>();
  #storedLeft = MAX_BACKLINK_KEYS;

  constructor(
    target: CacheExportTarget<TRecord>,
    results: ResultsByKey<TResult>,
    opts: CacheExportOptions<TResult>,
  ) {
    this.#target = target;
    this.#results = results;
    this.#opts = opts;
  }

  write(top: CacheKey<TResult>): TRecord[] {
    for (const key of postOrder(top, childrenOf)) {
      if (!this.#written.has(key)) this.#written.set(key, this.#writeKey(key));
    }
    return this.#recordsOf(top);
  }

  #recordsOf(key: CacheKey<TResult>): TRecord[] {
    return [key, ...key.companions].flatMap((each) => this.#written.get(each) ?? []);
  }

  #writeKey(key: CacheKey<TResult>): TRecord | undefined {
    const inputs = key.deps.map((links) => links.flatMap((link) => this.#linksOf(link)));
    for (const { input, link } of key.alternates) inputs[input]?.push(...this.#linksOf(link));
    if (!this.#opts.ignoreBacklinks) this.#addStored(key, inputs);
    if (inputs.some((links) => links.length === 0)) return undefined;
    const found = this.#results.get(key);
    if (key.deps.length === 0 && found?.record) this.#addTwins(found.record, found.results);
    return this.#target.add(key.rootId, inputs, found?.results ?? []);
  }

  #linksOf(link: CacheKeyLink<TResult>): CacheExportLink<TRecord>[] {
    return this.#recordsOf(link.key).map((record) => ({ record, selector: link.selector }));
  }

  /** Other keys without inputs that have the same result: a source has one per cache map. */
  #addTwins(record: CacheRecord<TResult>, results: readonly CacheExportResult[]): void {
    const { source, key } = record;
    for (const id of source.keys.idsByResult(record.id)) {
      if (id === key.ids.get(source) || !isDigest(id) || source.keys.backlinks(id).length > 0) continue;
      this.#target.add(id, [], results);
    }
  }

  #addStored(key: CacheKey<TResult>, inputs: CacheExportLink<TRecord>[][]): void {
    for (const [source, id] of key.ids) {
      if (id === "") continue;
      for (const { id: from, link } of source.keys.backlinks(id)) {
        const links = inputs[link.input];
        if (!links) continue;
        for (const record of this.#writeStored(source, from)) links.push({ record, selector: link.selector });
      }
    }
    for (const links of inputs) dropDoubles(links);
  }

  /** Records of a stored key, made from the links that lead to it. */
  #writeStored(source: CacheSource<TResult>, top: string): readonly TRecord[] {
    let known = this.#stored.get(source);
    if (!known) {
      known = new Map();
      this.#stored.set(source, known);
    }
    const done = known.get(top);
    if (done) return done;
    const all = known;
    const parents = (id: string): string[] =>
      all.has(id) || this.#storedLeft-- <= 0 ? [] : source.keys.backlinks(id).map((backlink) => backlink.id);
    for (const id of postOrder(top, parents)) {
      if (!all.has(id)) all.set(id, this.#writeStoredKey(source, id, all));
    }
    return all.get(top) ?? [];
  }

  #writeStoredKey(
    source: CacheSource<TResult>,
    id: string,
    known: ReadonlyMap<string, readonly TRecord[]>,
  ): readonly TRecord[] {
    const backlinks = source.keys.backlinks(id);
    if (backlinks.length === 0) {
      const record = isDigest(id) ? this.#target.add(id, [], []) : undefined;
      return record === undefined ? [] : [record];
    }
    const byDigest = new Map<string, CacheExportLink<TRecord>[][]>();
    for (const { id: from, link } of backlinks) {
      const digest = source.keys.recordDigest?.(link) ?? rootKey(link.digest, link.output);
      const inputs = byDigest.get(digest) ?? [];
      byDigest.set(digest, inputs);
      while (inputs.length <= link.input) inputs.push([]);
      for (const record of known.get(from) ?? [])
        inputs[link.input]!.push({ record, selector: link.selector });
    }
    const out: TRecord[] = [];
    for (const [digest, inputs] of byDigest) {
      if (inputs.some((links) => links.length === 0)) continue;
      const record = this.#target.add(digest, inputs, []);
      if (record !== undefined) out.push(record);
    }
    return out;
  }
}

function dropDoubles<TRecord>(links: CacheExportLink<TRecord>[]): void {
  const seen = new Map<TRecord, Set<string>>();
  const kept = links.filter(({ record, selector }) => {
    const selectors = seen.get(record) ?? new Set();
    seen.set(record, selectors);
    if (selectors.has(selector)) return false;
    selectors.add(selector);
    return true;
  });
  links.splice(0, links.length, ...kept);
}

function isDigest(id: string): boolean {
  return /^[a-z0-9]+:[0-9a-f]{32,}$/.test(id);
}
