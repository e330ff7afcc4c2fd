/**
 * Questions to caches, and what is written into them.
 *
 * Two rules differ from BuildKit's, because theirs can serve a result that was made from other content:
 *
 * 1. An id is looked up by an input's content keys when it has any, not by its definition keys: the same
 *    definition may give other content after its record is gone, and must then get another id.
 * 2. A definition key is linked to what was found by the content of the same result, never the other way.
 */
import type { CacheKey, CacheKeyLink, CacheRecord } from "./cache-key.ts";
import { isContentKey, CacheKey as Key } from "./cache-key.ts";
import type { CacheSource } from "./cache-source.ts";
import type { CacheLinkInfo, CacheResultInfo } from "./key-store.ts";

/** A stored key that could be an edge's. */
export interface Match<TResult> {
  readonly source: CacheSource<TResult>;
  readonly id: string;
}

/** Names a match: one string per source and id. */
export function matchName<TResult>(match: Match<TResult>): string {
  return `${match.source.id} ${match.id}`;
}

/** Which link of which op is asked for. */
export interface LinkQuestion {
  readonly digest: string;
  readonly input: number;
  readonly output: number;
}

/** Every stored key that one of `links` leads to. */
export function followLinks<TResult>(
  sources: readonly CacheSource<TResult>[],
  links: readonly CacheKeyLink<TResult>[],
  question: LinkQuestion,
): Map<string, Match<TResult>> {
  const out = new Map<string, Match<TResult>>();
  for (const source of sources) {
    for (const link of links) {
      const from = findId(source, link.key);
      if (from === undefined) continue;
      for (const id of source.keys.links(from, linkInfo(question, link.selector))) {
        const match = { source, id };
        out.set(matchName(match), match);
      }
    }
  }
  return out;
}

/** Makes `links` lead to everything in `targets` in the sources that can be written. */
export function addLinks<TResult>(
  links: readonly CacheKeyLink<TResult>[],
  targets: Iterable<Match<TResult>>,
  question: LinkQuestion,
): void {
  for (const { source, id } of targets) {
    if (source.results.save === undefined) continue;
    for (const link of links) {
      const from = findId(source, link.key);
      if (from !== undefined) source.keys.addLink(from, linkInfo(question, link.selector), id);
    }
  }
}

/** The key of an op without inputs, if any of the sources has it. */
export function findRoot<TResult>(sources: readonly CacheSource<TResult>[], key: CacheKey<TResult>): boolean {
  let found = false;
  for (const source of sources) {
    if (!source.keys.exists(key.rootId)) continue;
    key.ids.set(source, key.rootId);
    found = true;
  }
  return found;
}

/**
 * Records of a key in the sources it has been found in, best first: newest, then `main`. Results that a
 * source no longer has are dropped from it.
 */
export function findRecords<TResult>(
  key: CacheKey<TResult>,
  main: CacheSource<TResult>,
): CacheRecord<TResult>[] {
  const byId = new Map<string, CacheRecord<TResult>>();
  for (const [source, id] of key.ids) {
    for (const info of [...source.keys.results(id)]) {
      if (!source.results.exists(info.id)) {
        source.keys.releaseResult(info.id);
      } else if (!byId.has(info.id) || source === main) {
        byId.set(info.id, { id: info.id, createdAtNs: info.createdAtNs, source, key });
      }
    }
  }
  return [...byId.values()].sort((a, b) => compareRecords(a, b, main));
}

/** Order of preference: newest first, then what is in `main`, then by id. */
export function compareRecords<TResult>(
  a: CacheRecord<TResult>,
  b: CacheRecord<TResult>,
  main: CacheSource<TResult>,
): number {
  if (a.createdAtNs !== b.createdAtNs) return a.createdAtNs > b.createdAtNs ? -1 : 1;
  if (a.source !== b.source) {
    if (a.source === main) return -1;
    if (b.source === main) return 1;
  }
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** A new result for the cache. */
export interface NewResult<TResult> {
  readonly key: CacheKey<TResult>;
  readonly result: TResult;
  readonly createdAtNs: bigint;
  /** Replace what the key led to before: it came from content that is out of date. */
  readonly supersede?: boolean;
}

/**
 * Stores a result and the links that lead to it. Nothing is stored in sources that can't be written.
 *
 * With `supersede` the key gets a new id, and the links of its inputs to its former ids are cut, so that
 * nothing built on the old content is found through it any more.
 */
export function saveResult<TResult>(
  source: CacheSource<TResult>,
  added: NewResult<TResult>,
  newId: () => string,
): CacheRecord<TResult> | undefined {
  if (source.results.save === undefined) return undefined;
  const info = source.results.save(added.result, added.createdAtNs);
  const store = (): CacheRecord<TResult> => storeResult(source, added, { info, newId });
  return source.keys.batch ? source.keys.batch(store) : store();
}

function storeResult<TResult>(
  source: CacheSource<TResult>,
  added: NewResult<TResult>,
  { info, newId }: { readonly info: CacheResultInfo; readonly newId: () => string },
): CacheRecord<TResult> {
  const { key } = added;
  assignIds(source, key, newId);
  if (added.supersede && key.deps.length > 0) {
    cutLinks(source, key);
    key.ids.set(source, newId());
  }
  source.keys.addResult(key.ids.get(source)!, info);
  storeLinks(source, key);
  return { id: info.id, createdAtNs: info.createdAtNs, source, key };
}

/**
 * Drops results that a source no longer has, with the keys that lead nowhere then; for when it is opened.
 * Returns how many.
 */
export function releaseUnreferenced<TResult>(source: CacheSource<TResult>): number {
  const run = (): number => {
    const asked = new Set<string>();
    const gone: string[] = [];
    for (const id of source.keys.ids()) {
      for (const info of source.keys.results(id)) {
        if (asked.has(info.id)) continue;
        asked.add(info.id);
        if (!source.results.exists(info.id)) gone.push(info.id);
      }
    }
    for (const id of gone) source.keys.releaseResult(id);
    return gone.length;
  };
  return source.keys.batch ? source.keys.batch(run) : run();
}

function linkInfo(question: LinkQuestion, selector: string): CacheLinkInfo {
  return { input: question.input, output: question.output, digest: question.digest, selector };
}

/** Id of a key in a source, if it is stored there. Remembers the answer, a negative one as `""`. */
function findId<TResult>(source: CacheSource<TResult>, key: CacheKey<TResult>): string | undefined {
  const known = key.ids.get(source);
  if (known !== undefined) return known === "" ? undefined : known;
  if (key.deps.length === 0) {
    key.ids.set(source, key.rootId);
    return key.rootId;
  }
  for (const item of unknownBelow(source, key)) {
    item.ids.set(
      source,
      item.deps.length === 0 ? item.rootId : (idsByInputs(source, item).values().next().value ?? ""),
    );
  }
  return findId(source, key);
}

/** Gives `key` and all it is made of an id in `source`: the one stored already, or a new one. */
function assignIds<TResult>(source: CacheSource<TResult>, key: CacheKey<TResult>, newId: () => string): void {
  for (const item of unknownBelow(source, key, true)) {
    item.ids.set(
      source,
      item.deps.length === 0 ? item.rootId : (idsByInputs(source, item).values().next().value ?? newId()),
    );
  }
}

/** Keys below and including `key` that have no id in `source` yet, inputs before users. */
function unknownBelow<TResult>(
  source: CacheSource<TResult>,
  key: CacheKey<TResult>,
  retry = false,
): CacheKey<TResult>[] {
  const wanted = (k: CacheKey<TResult>): boolean => {
    const id = k.ids.get(source);
    return id === undefined || (retry && id === "");
  };
  return postOrder(key, (k) => (wanted(k) ? k.deps.flat().map((link) => link.key) : [])).filter(wanted);
}

/** Stored ids that all inputs of `key` lead to. */
function idsByInputs<TResult>(source: CacheSource<TResult>, key: CacheKey<TResult>): Set<string> {
  let out: Set<string> | undefined;
  for (const [input, links] of key.deps.entries()) {
    const byContent = links.filter((link) => isContentKey(link.key));
    const found = new Set<string>();
    for (const link of byContent.length > 0 ? byContent : links) {
      const from = link.key.ids.get(source);
      if (!from) continue;
      const info = { input, output: key.output, digest: key.digest, selector: link.selector };
      for (const id of source.keys.links(from, info)) found.add(id);
    }
    out = out === undefined ? found : out.intersection(found);
    if (out.size === 0) break;
  }
  return out ?? new Set();
}

function cutLinks<TResult>(source: CacheSource<TResult>, key: CacheKey<TResult>): void {
  const old = idsByInputs(source, key);
  const definitions = key.deps.map((links) => links.filter((link) => !isContentKey(link.key)));
  if (definitions.every((links) => links.length > 0)) {
    const byDefinition = new Key<TResult>({ digest: key.digest, output: key.output, deps: definitions });
    for (const id of idsByInputs(source, byDefinition)) old.add(id);
  }
  for (const [input, links] of key.deps.entries()) {
    for (const link of links) {
      const from = link.key.ids.get(source);
      if (!from) continue;
      const info = { input, output: key.output, digest: key.digest, selector: link.selector };
      for (const id of old) source.keys.removeLink(from, info, id);
    }
  }
}

function storeLinks<TResult>(source: CacheSource<TResult>, key: CacheKey<TResult>): void {
  const waiting = [key];
  const seen = new Set<CacheKey<TResult>>(waiting);
  for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
    const id = item.ids.get(source)!;
    for (const [input, links] of item.deps.entries()) {
      for (const link of links) {
        const from = link.key.ids.get(source)!;
        const info = { input, output: item.output, digest: item.digest, selector: link.selector };
        if (source.keys.hasLink(from, info, id)) continue;
        source.keys.addLink(from, info, id);
        if (seen.has(link.key)) continue;
        seen.add(link.key);
        waiting.push(link.key);
      }
    }
  }
}

/** Everything reachable from `root`, children first. Needs no stack of its own, however deep it is. */
export function postOrder<T>(root: T, children: (item: T) => readonly T[]): T[] {
  const out: T[] = [];
  const seen = new Set<T>([root]);
  const stack: { item: T; rest: Iterator<T> }[] = [{ item: root, rest: children(root)[Symbol.iterator]() }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const next = top.rest.next();
    if (next.done) {
      out.push(top.item);
      stack.pop();
    } else if (!seen.has(next.value)) {
      seen.add(next.value);
      stack.push({ item: next.value, rest: children(next.value)[Symbol.iterator]() });
    }
  }
  return out;
}
