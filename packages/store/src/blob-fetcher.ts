import type { GrowingFile } from "@kiln/archive";
import { BuildError, isBuildError, Semaphore } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import { Flights } from "./flights.ts";
import type { CacheRecord } from "./record.ts";
import type { BlobProgress, BlobProvider, LayerObserver, RefContext } from "./ref.ts";
import type { RefDeps } from "./ref-deps.ts";

const MAX_DOWNLOADS = 8;

/** A context with somebody who reads the blob while it comes; only asked when this call starts the download. */
export interface FetchContext extends RefContext {
  readonly growing?: (path: string) => GrowingFile;
}

/** Gets the blobs of records when they are needed, each once, verified. */
export class BlobFetcher {
  readonly #deps: RefDeps;
  readonly #flights = new Flights();
  readonly #providers = new Map<string, BlobProvider>();
  readonly #observers = new Map<string, Set<LayerObserver>>();
  readonly #permits = new Semaphore(MAX_DOWNLOADS);

  constructor(deps: RefDeps) {
    this.#deps = deps;
  }

  /** Remembers, for this process, where a blob can be had. */
  addProvider(digest: string, provider: BlobProvider): void {
    this.#providers.set(digest, provider);
  }

  /** Replaces a provider that may have grown old: its session or token may be gone. */
  refreshProvider(digest: string, provider: BlobProvider): void {
    if (this.#providers.has(digest)) this.#providers.set(digest, provider);
  }

  /** Lets `observer` see the work on layers until what is returned is disposed of. */
  observe(digests: readonly string[], observer: LayerObserver): Disposable {
    for (const digest of digests) {
      const all = this.#observers.get(digest) ?? new Set();
      this.#observers.set(digest, all.add(observer));
    }
    const stop = (): void => {
      for (const digest of digests) {
        const all = this.#observers.get(digest);
        all?.delete(observer);
        if (all?.size === 0) this.#observers.delete(digest);
      }
    };
    return { [Symbol.dispose]: stop };
  }

  /** Does some work on a layer; `ctx` and the layer's observers are told how it gets on. */
  async observed<T>(
    digest: string,
    ctx: RefContext,
    work: (report: (progress: BlobProgress) => void) => Promise<T>,
  ): Promise<T> {
    const observers = [...(this.#observers.get(digest) ?? [])];
    const ends = observers.map((observer) => observer.begin());
    const finish = (error?: unknown): void => {
      for (const end of ends) end(error);
    };
    try {
      const out = await work((progress) => {
        ctx.onProgress?.(progress);
        for (const observer of observers) observer.progress(progress);
      });
      finish();
      return out;
    } catch (error) {
      finish(error);
      throw error;
    }
  }

  /** Forgets what only served a blob that is gone. */
  forget(digest: string): void {
    this.#providers.delete(digest);
  }

  /** True when the blob is here or somebody is known to have it. */
  canHave(digest: string, remotes: readonly string[]): boolean {
    return this.#deps.content.has(digest) || this.#providers.has(digest) || remotes.length > 0;
  }

  /**
   * Makes sure that a blob of a record is in the content store.
   *
   * @throws `not_found` when nobody is known to have it, `data_loss` when what came was something else
   */
  async ensure(record: CacheRecord, desc: Descriptor, ctx: FetchContext): Promise<void> {
    if (this.#deps.content.has(desc.digest)) return;
    await this.#flights.run(desc.digest, ctx, (shared) =>
      this.#fetch(record, desc, { ...shared, ...(ctx.growing ? { growing: ctx.growing } : {}) }),
    );
  }

  async #fetch(record: CacheRecord, desc: Descriptor, ctx: FetchContext): Promise<void> {
    const { content } = this.#deps;
    using _permit = await this.#permits.acquire(ctx.signal);
    if (content.has(desc.digest)) return;
    await this.observed(desc.digest, ctx, (report) => this.#download(record, desc, { ...ctx, report }));
  }

  async #download(
    record: CacheRecord,
    desc: Descriptor,
    ctx: FetchContext & { readonly report: (progress: BlobProgress) => void },
  ): Promise<void> {
    const { content } = this.#deps;
    const report = (current: number, done: boolean): void =>
      ctx.report({ digest: desc.digest, action: "downloading", current, total: desc.size, done });
    const counted = async function* (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      let current = 0;
      for await (const chunk of source) {
        yield chunk;
        current += chunk.length;
        report(current, false);
      }
    };
    const labels = record.state.diffId ? { "containerd.io/uncompressed": record.state.diffId } : {};
    await content.write(counted(await this.#open(record, desc, ctx)), {
      digest: desc.digest,
      ...(desc.size > 0 ? { sizeBytes: desc.size } : {}),
      labels,
      signal: ctx.signal,
      ...(ctx.growing ? { growing: ctx.growing } : {}),
    });
    report(desc.size, true);
  }

  async #open(record: CacheRecord, desc: Descriptor, ctx: RefContext): Promise<AsyncIterable<Uint8Array>> {
    const { remotes } = record.state;
    const provider = this.#providers.get(desc.digest);
    if (provider) {
      try {
        const source = await provider(desc, ctx);
        // while that waited, a younger one may have come
        const now = this.#providers.get(desc.digest) ?? provider;
        return now === provider ? source : await now(desc, ctx);
      } catch (error) {
        ctx.signal.throwIfAborted();
        // A provider may be gone with its session; another source may still be there.
        if (remotes.length === 0) throw error;
      }
    }
    if (remotes.length === 0) {
      throw new BuildError("not_found", `missing remote provider for blob ${desc.digest}`);
    }
    return await this.#deps.fetchBlob(desc, remotes, ctx);
  }

  /**
   * Reads a blob again after it gave trouble: one that was damaged on disk is removed. True when it was, so
   * that fetching it again may help.
   */
  async wasDamaged(digest: string): Promise<boolean> {
    if (!this.#deps.content.has(digest)) return true;
    try {
      await this.#deps.content.verify(digest);
      return false;
    } catch (error) {
      if (isBuildError(error, "data_loss")) return true;
      throw error;
    }
  }
}
