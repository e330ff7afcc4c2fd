import { digestOfText } from "../digest.ts";
import type { CacheExportLink, CacheExportResult, CacheExportTarget } from "../export/target.ts";

/** A record of a cache that is exported or was imported: an output of an op, with what went into it. */
export class ChainRecord {
  readonly digest: string;
  /** Per input the records it may be, each with selectors. */
  readonly inputs: Map<ChainRecord, Set<string>>[] = [];
  /** By input number, selector and digest of the user. */
  readonly users = new Map<string, Set<ChainRecord>>();
  readonly results: CacheExportResult[] = [];
  /** Greater than that of all inputs. */
  level = 0;

  constructor(digest: string) {
    this.digest = digest;
  }

  /** The newest result. */
  get bestResult(): CacheExportResult | undefined {
    let best: CacheExportResult | undefined;
    for (const result of this.results) if (!best || result.createdAtNs > best.createdAtNs) best = result;
    return best;
  }
}

/**
 * The records of a cache export or import, without doubles and without loops.
 *
 * A record is taken for one that is there already when the digests are the same and, at every input, one's
 * links are among the other's. BuildKit is content with one common link per input, which can bring together
 * results of different content that were found by the same definition at different times.
 *
 * Adding is linear in the number of links: every record has a level above its inputs', so a new link can
 * only close a loop, and is only checked for one, when it leads to an older record of no higher level.
 */
export class CacheChains implements CacheExportTarget<ChainRecord> {
  readonly #roots = new Map<string, ChainRecord>();
  readonly #records = new Set<ChainRecord>();
  /** Records looked at in search of loops: the measure of what is not linear. */
  visited = 0;

  /** All records, in the order of their first adding. */
  get records(): ReadonlySet<ChainRecord> {
    return this.#records;
  }

  /**
   * @throws when an input has no links, or one to a record of other chains.
   */
  add(
    digest: string,
    inputs: readonly (readonly CacheExportLink<ChainRecord>[])[],
    results: readonly CacheExportResult[],
  ): ChainRecord | undefined {
    if (digest.startsWith("random:")) return undefined;
    for (const links of inputs) {
      if (links.length === 0) throw new Error(`empty dependency for ${digest}`);
      for (const { record } of links) {
        if (!this.#records.has(record))
          throw new Error(`dependency ${record.digest} is not part of the same cache chain`);
      }
    }
    const known = inputs.length === 0 ? this.#roots.get(digest) : findEqual(digest, inputs);
    const record = known ?? this.#create(digest, inputs);
    for (const result of results) addResult(record, result);
    for (const [input, links] of inputs.entries()) {
      for (const link of links) this.#link(record, input, link);
    }
    return record;
  }

  #create(digest: string, inputs: readonly (readonly CacheExportLink<ChainRecord>[])[]): ChainRecord {
    const record = new ChainRecord(digest);
    for (const links of inputs) {
      record.inputs.push(new Map());
      for (const link of links) record.level = Math.max(record.level, link.record.level + 1);
    }
    if (inputs.length === 0) this.#roots.set(digest, record);
    this.#records.add(record);
    return record;
  }

  #link(user: ChainRecord, input: number, { record, selector }: CacheExportLink<ChainRecord>): void {
    const links = user.inputs[input]!;
    const selectors = links.get(record);
    if (selectors?.has(selector)) return;
    if (record.level >= user.level) {
      if (this.#leadsTo(user, record)) return; // a loop
      this.#raise(user, record.level + 1);
    }
    if (selectors) selectors.add(selector);
    else links.set(record, new Set([selector]));
    const name = userName(input, selector, user.digest);
    const users = record.users.get(name);
    if (users) users.add(user);
    else record.users.set(name, new Set([user]));
  }

  /** Whether `target` is `from` or made from it. Nothing of a higher level can be on the way. */
  #leadsTo(from: ChainRecord, target: ChainRecord): boolean {
    const seen = new Set([from]);
    for (const record of seen) {
      this.visited++;
      if (record === target) return true;
      for (const users of record.users.values()) {
        for (const user of users) if (user.level <= target.level) seen.add(user);
      }
    }
    return false;
  }

  #raise(first: ChainRecord, level: number): void {
    first.level = level;
    const waiting = [first];
    for (let record = waiting.pop(); record !== undefined; record = waiting.pop()) {
      this.visited++;
      for (const users of record.users.values()) {
        for (const user of users) {
          if (user.level > record.level) continue;
          user.level = record.level + 1;
          waiting.push(user);
        }
      }
    }
  }
}

function userName(input: number, selector: string, digest: string): string {
  return `${input} ${selector} ${digest}`;
}

function findEqual(
  digest: string,
  inputs: readonly (readonly CacheExportLink<ChainRecord>[])[],
): ChainRecord | undefined {
  const candidates = new Set<ChainRecord>();
  for (const { record, selector } of inputs[0]!) {
    for (const user of record.users.get(userName(0, selector, digest)) ?? []) candidates.add(user);
  }
  for (const candidate of candidates) {
    if (candidate.inputs.length !== inputs.length) continue;
    if (inputs.every((links, input) => nested(candidate.inputs[input]!, links))) return candidate;
  }
  return undefined;
}

/** One of the two has all links of the other. */
function nested(
  have: ReadonlyMap<ChainRecord, ReadonlySet<string>>,
  links: readonly CacheExportLink<ChainRecord>[],
): boolean {
  const common = links.filter(({ record, selector }) => have.get(record)?.has(selector)).length;
  if (common === 0) return false;
  if (common === links.length) return true;
  let all = 0;
  for (const selectors of have.values()) all += selectors.size;
  return common === all;
}

function addResult(record: ChainRecord, result: CacheExportResult): void {
  const name = remoteName(result);
  const double = record.results.some((r) => r.createdAtNs === result.createdAtNs && remoteName(r) === name);
  if (!double) record.results.push(result);
}

function remoteName(result: CacheExportResult): string {
  return result.remote.descriptors.map((descriptor) => descriptor.digest).join("");
}

/** Names the blobs of a result; the id of the result in an imported cache. */
export function remoteId(result: CacheExportResult): string {
  return digestOfText(remoteName(result));
}

/**
 * Gives every record an id that follows from its digest and its inputs alone; that of a record without
 * inputs is its digest.
 */
export function recordIds(chains: CacheChains): Map<ChainRecord, string> {
  const out = new Map<ChainRecord, string>();
  const inputsFirst = [...chains.records].sort((a, b) => a.level - b.level);
  for (const record of inputsFirst) {
    if (record.inputs.length === 0) {
      out.set(record, record.digest);
      continue;
    }
    const parts = record.inputs.map((links) =>
      [...links]
        .flatMap(([input, selectors]) => [...selectors].map((selector) => `${out.get(input)} ${selector}`))
        .sort()
        .join("\n"),
    );
    out.set(record, digestOfText([record.digest, ...parts].join("\n\n")));
  }
  return out;
}
