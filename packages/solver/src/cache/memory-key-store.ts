import {
  type CacheBacklink,
  type CacheKeyStore,
  type CacheLinkInfo,
  type CacheResultInfo,
  linkKey,
} from "./key-store.ts";

interface Entry {
  readonly results: Map<string, CacheResultInfo>;
  /** By link, then by target. */
  readonly links: Map<string, Set<string>>;
  /** By source key, then by link. */
  readonly backlinks: Map<string, Map<string, CacheLinkInfo>>;
}

const NONE: readonly string[] = [];

/** A {@link CacheKeyStore} in memory. */
export class MemoryKeyStore implements CacheKeyStore {
  readonly #entries = new Map<string, Entry>();
  readonly #byResult = new Map<string, Set<string>>();

  exists(id: string): boolean {
    const entry = this.#entries.get(id);
    return entry !== undefined && (entry.results.size > 0 || entry.links.size > 0);
  }

  *ids(): Iterable<string> {
    for (const id of this.#entries.keys()) if (this.exists(id)) yield id;
  }

  results(id: string): readonly CacheResultInfo[] {
    return [...(this.#entries.get(id)?.results.values() ?? [])];
  }

  result(id: string, resultId: string): CacheResultInfo | undefined {
    return this.#entries.get(id)?.results.get(resultId);
  }

  addResult(id: string, info: CacheResultInfo): void {
    this.#entry(id).results.set(info.id, info);
    const ids = this.#byResult.get(info.id);
    if (ids) ids.add(id);
    else this.#byResult.set(info.id, new Set([id]));
  }

  releaseResult(resultId: string): void {
    const ids = this.#byResult.get(resultId);
    if (!ids) return;
    this.#byResult.delete(resultId);
    for (const id of ids) {
      this.#entries.get(id)?.results.delete(resultId);
      this.#removeEmpty(id);
    }
  }

  idsByResult(resultId: string): readonly string[] {
    return [...(this.#byResult.get(resultId) ?? NONE)];
  }

  addLink(id: string, link: CacheLinkInfo, target: string): void {
    const name = linkKey(link);
    const entry = this.#entry(id);
    const targets = entry.links.get(name);
    if (targets) targets.add(target);
    else entry.links.set(name, new Set([target]));
    const backlinks = this.#entry(target).backlinks;
    const from = backlinks.get(id);
    if (from) from.set(name, link);
    else backlinks.set(id, new Map([[name, link]]));
  }

  removeLink(id: string, link: CacheLinkInfo, target: string): void {
    const name = linkKey(link);
    const entry = this.#entries.get(id);
    const targets = entry?.links.get(name);
    if (!entry || !targets?.delete(target)) return;
    if (targets.size === 0) entry.links.delete(name);
    const backlinks = this.#entries.get(target)?.backlinks;
    const from = backlinks?.get(id);
    from?.delete(name);
    if (from?.size === 0) backlinks?.delete(id);
  }

  hasLink(id: string, link: CacheLinkInfo, target: string): boolean {
    return this.#entries.get(id)?.links.get(linkKey(link))?.has(target) ?? false;
  }

  links(id: string, link: CacheLinkInfo): readonly string[] {
    const targets = this.#entries.get(id)?.links.get(linkKey(link));
    return targets ? [...targets] : NONE;
  }

  backlinks(id: string): readonly CacheBacklink[] {
    const out: CacheBacklink[] = [];
    for (const [from, links] of this.#entries.get(id)?.backlinks ?? []) {
      for (const link of links.values()) out.push({ id: from, link });
    }
    return out;
  }

  #entry(id: string): Entry {
    let entry = this.#entries.get(id);
    if (!entry) {
      entry = { results: new Map(), links: new Map(), backlinks: new Map() };
      this.#entries.set(id, entry);
    }
    return entry;
  }

  #removeEmpty(first: string): void {
    const waiting = [first];
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      const entry = this.#entries.get(id);
      if (!entry || this.exists(id)) continue;
      for (const [from, links] of [...entry.backlinks]) {
        for (const link of [...links.values()]) this.removeLink(from, link, id);
        waiting.push(from);
      }
      this.#entries.delete(id);
    }
  }
}
