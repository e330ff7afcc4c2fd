import { BuildError, isCanceled } from "@kiln/base";
import type { CacheLoadContext, CacheResultStore, CacheSource, Remote } from "../cache/cache-source.ts";
import {
  type CacheBacklink,
  type CacheKeyStore,
  type CacheLinkInfo,
  type CacheResultInfo,
  linkKey,
} from "../cache/key-store.ts";
import { rootKey } from "../digest.ts";
import type { CacheExportResult } from "../export/target.ts";
import { type CacheChains, type ChainRecord, recordIds, remoteId } from "./chains.ts";

/** How the results of an imported cache become the engine's. */
export interface RemoteResults<TResult> {
  /** Makes a result of layers. It may stay lazy. */
  fromRemote(remote: Remote, ctx: CacheLoadContext): Promise<TResult>;
  /** Whether a result will do for an exporter's `compression`; all do when absent. */
  readonly allows?: ((remote: Remote, compression: unknown) => boolean) | undefined;
}

/**
 * An imported cache as a source for the solver. It can't be written: what is loaded from it goes into the
 * main cache.
 */
export function chainSource<TResult>(
  id: string,
  chains: CacheChains,
  results: RemoteResults<TResult>,
): CacheSource<TResult> {
  const keys = new ChainKeyStore(chains);
  return { id, keys, results: new ChainResultStore(keys, results) };
}

interface Entry {
  readonly id: string;
  readonly record: ChainRecord;
  /** Newest first, by id. */
  readonly results: ReadonlyMap<string, CacheExportResult>;
  readonly links: Map<string, string[]>;
  readonly backlinks: CacheBacklink[];
}

/** The keys of {@link CacheChains}. What would change them is ignored. */
export class ChainKeyStore implements CacheKeyStore {
  readonly #entries = new Map<string, Entry>();
  readonly #byRecord = new Map<ChainRecord, Entry>();
  readonly #byResult = new Map<string, string[]>();

  constructor(chains: CacheChains) {
    for (const [record, id] of recordIds(chains)) this.#add(record, id);
  }

  exists(id: string): boolean {
    return this.#entries.has(id);
  }

  ids(): Iterable<string> {
    return this.#entries.keys();
  }

  results(id: string): readonly CacheResultInfo[] {
    const entry = this.#entries.get(id);
    return entry ? [...entry.results].map(([name, result]) => infoOf(name, result)) : [];
  }

  result(id: string, resultId: string): CacheResultInfo | undefined {
    const result = this.#entries.get(id)?.results.get(resultId);
    return result && infoOf(resultId, result);
  }

  idsByResult(resultId: string): readonly string[] {
    return this.#byResult.get(resultId) ?? [];
  }

  links(id: string, link: CacheLinkInfo): readonly string[] {
    return this.#entries.get(id)?.links.get(linkKey(recordLink(link))) ?? [];
  }

  hasLink(id: string, link: CacheLinkInfo, target: string): boolean {
    return this.links(id, link).includes(target);
  }

  backlinks(id: string): readonly CacheBacklink[] {
    return this.#entries.get(id)?.backlinks ?? [];
  }

  /** Links of records have the records' digests already. */
  recordDigest(link: CacheLinkInfo): string {
    return link.digest;
  }

  addResult(): void {}
  releaseResult(): void {}
  addLink(): void {}
  removeLink(): void {}

  /** The results of the record `id`, by id. */
  remotes(id: string): ReadonlyMap<string, CacheExportResult> {
    return this.#entries.get(id)?.results ?? new Map();
  }

  /** The record `id` and everything it was made from, itself first. */
  withInputs(
    id: string,
  ): { readonly id: string; readonly results: ReadonlyMap<string, CacheExportResult> }[] {
    const first = this.#entries.get(id);
    if (!first) return [];
    const seen = new Set([first]);
    for (const entry of seen) {
      for (const links of entry.record.inputs) {
        for (const record of links.keys()) seen.add(this.#byRecord.get(record)!);
      }
    }
    return [...seen];
  }

  #add(record: ChainRecord, id: string): void {
    const results = new Map<string, CacheExportResult>();
    const newestFirst = [...record.results].sort((a, b) => Number(b.createdAtNs - a.createdAtNs));
    for (const result of newestFirst) {
      const name = remoteId(result);
      if (results.has(name)) continue;
      results.set(name, result);
      const ids = this.#byResult.get(name);
      if (ids) ids.push(id);
      else this.#byResult.set(name, [id]);
    }
    const entry: Entry = { id, record, results, links: new Map(), backlinks: [] };
    this.#entries.set(id, entry);
    this.#byRecord.set(record, entry);
    for (const [input, links] of record.inputs.entries()) {
      for (const [from, selectors] of links) {
        for (const selector of selectors) {
          this.#link(this.#byRecord.get(from)!, { input, output: 0, digest: record.digest, selector }, entry);
        }
      }
    }
  }

  #link(from: Entry, link: CacheLinkInfo, target: Entry): void {
    const name = linkKey(link);
    const targets = from.links.get(name);
    if (targets) targets.push(target.id);
    else from.links.set(name, [target.id]);
    target.backlinks.push({ id: from.id, link });
  }
}

function infoOf(id: string, result: CacheExportResult): CacheResultInfo {
  return { id, createdAtNs: result.createdAtNs };
}

/** A solver's link in the terms of records, whose digests have the output in them. */
function recordLink(link: CacheLinkInfo): CacheLinkInfo {
  return { ...link, digest: rootKey(link.digest, link.output), output: 0 };
}

class ChainResultStore<TResult> implements CacheResultStore<TResult> {
  readonly #keys: ChainKeyStore;
  readonly #results: RemoteResults<TResult>;

  constructor(keys: ChainKeyStore, results: RemoteResults<TResult>) {
    this.#keys = keys;
    this.#results = results;
  }

  exists(resultId: string): boolean {
    return this.#keys.idsByResult(resultId).length > 0;
  }

  async load(info: CacheResultInfo, ctx: CacheLoadContext): Promise<TResult> {
    return this.#results.fromRemote(this.#find(info.id).remote, ctx);
  }

  async loadWithParents(
    keyId: string,
    info: CacheResultInfo,
    ctx: CacheLoadContext,
  ): Promise<ReadonlyMap<string, TResult>> {
    const whole = this.#keys.remotes(keyId).get(info.id) ?? this.#find(info.id);
    const out = new Map([[keyId, await this.#results.fromRemote(whole.remote, ctx)]]);
    for (const { id, results } of this.#keys.withInputs(keyId)) {
      if (out.has(id)) continue;
      const part = [...results.values()].find((result) => isPart(result.remote, whole.remote));
      if (!part) continue;
      try {
        out.set(id, await this.#results.fromRemote(part.remote, ctx));
      } catch (error) {
        // only the result that was asked for has to be had
        if (isCanceled(error) || ctx.signal.aborted) break;
      }
    }
    return out;
  }

  async remotes(info: CacheResultInfo, compression: unknown): Promise<readonly Remote[]> {
    const all = this.#keys.idsByResult(info.id).flatMap((id) => [...this.#keys.remotes(id).values()]);
    const asked = all.filter((result) => remoteId(result) === info.id).map((result) => result.remote);
    if (compression === undefined) return asked.slice(0, 1);
    const { allows } = this.#results;
    return asked.slice(0, 1).filter((remote) => !allows || allows(remote, compression));
  }

  #find(resultId: string): CacheExportResult {
    for (const id of this.#keys.idsByResult(resultId)) {
      const result = this.#keys.remotes(id).get(resultId);
      if (result) return result;
    }
    throw new BuildError("not_found", `no such result in the imported cache: ${resultId}`);
  }
}

/** Whether the layers of `part` are the lowest of `whole`. */
function isPart(part: Remote, whole: Remote): boolean {
  return (
    part.descriptors.length <= whole.descriptors.length &&
    part.descriptors.every((descriptor, i) => descriptor.digest === whole.descriptors[i]!.digest)
  );
}
