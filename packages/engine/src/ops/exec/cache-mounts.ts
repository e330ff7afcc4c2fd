import { CacheSharingOpt } from "@kiln/api/pb";
import { BuildError, isBuildError, Semaphore, sleep } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import type { ImmutableRef, MutableRef, RefContext, RefManager } from "@kiln/store";

/** Metadata of a cache mount's record: its key, and its id alone. BuildKit has the first of them too. */
const KEY = "cache-dir";
const ID_KEY = "cache-dir-id";
/** How often a locked cache mount is asked for again. */
const LOCK_POLL_MS = 100;

/** One use of a cache mount; released once. */
export interface CacheMountUse {
  readonly ref: MutableRef;
  release(): Promise<void>;
}

/** What a cache mount is asked for with. */
export interface CacheMountRequest {
  readonly id: string;
  /** Tree that a new one starts with. */
  readonly base: ImmutableRef | undefined;
  readonly sharing: CacheSharingOpt;
  /** Description of a new record. */
  readonly description: string;
  readonly ctx: RefContext;
}

/** A tree that several users write to at the same time. */
class Share {
  readonly ref: MutableRef;
  #users = 0;
  readonly #onLast: () => Promise<void>;

  constructor(ref: MutableRef, onLast: () => Promise<void>) {
    this.ref = ref;
    this.#onLast = onLast;
  }

  use(): CacheMountUse {
    this.#users++;
    let held = true;
    return {
      ref: this.ref,
      release: async () => {
        if (!held) return;
        held = false;
        if (--this.#users === 0) await this.#onLast();
      },
    };
  }
}

/**
 * The cache mounts of a worker: writable trees that outlive builds, found by id (and the tree they started
 * with). `SHARED` users of one write to the same tree; a `PRIVATE` user gets one that nobody uses, a new one
 * if need be; a `LOCKED` user waits until nobody else has it.
 */
export class CacheMounts {
  readonly #refs: RefManager;
  readonly #shares = new Map<string, Share>();
  readonly #locks = new Map<string, Semaphore>();
  /** Records in use, by id. */
  readonly #active = new Map<string, MutableRef>();

  constructor(refs: RefManager) {
    this.#refs = refs;
  }

  async acquire(request: CacheMountRequest): Promise<CacheMountUse> {
    const key = request.base === undefined ? request.id : `${request.id}:${request.base.id}`;
    switch (request.sharing) {
      case CacheSharingOpt.SHARED:
        return await this.#acquireShared(key, request);
      case CacheSharingOpt.PRIVATE:
        return this.#single(await this.#find(key, request));
      case CacheSharingOpt.LOCKED:
        return this.#single(await this.#waitFor(key, request));
      default:
        throw new BuildError("invalid_argument", `invalid cache sharing option: ${String(request.sharing)}`);
    }
  }

  #lock(key: string, signal: AbortSignal): Promise<Disposable> {
    let lock = this.#locks.get(key);
    if (lock === undefined) {
      lock = new Semaphore(1);
      this.#locks.set(key, lock);
    }
    return lock.acquire(signal);
  }

  async #acquireShared(key: string, request: CacheMountRequest): Promise<CacheMountUse> {
    using _lock = await this.#lock(`shared:${key}`, request.ctx.signal);
    const known = this.#shares.get(key);
    if (known) return known.use();
    const ref = await this.#find(key, request);
    const single = this.#single(ref);
    const share = new Share(ref, async () => {
      // Gone from the list first: whoever comes now takes the record anew.
      if (this.#shares.get(key) === share) this.#shares.delete(key);
      await single.release();
    });
    this.#shares.set(key, share);
    return share.use();
  }

  #single(ref: MutableRef): CacheMountUse {
    this.#active.set(ref.id, ref);
    let held = true;
    return {
      ref,
      release: async () => {
        if (!held) return;
        held = false;
        this.#active.delete(ref.id);
        await ref.release();
      },
    };
  }

  /** An unused record of this key, or a new one. */
  async #find(key: string, request: CacheMountRequest): Promise<MutableRef> {
    using _lock = await this.#lock(key, request.ctx.signal);
    const found = await this.#takeUnused(key);
    return found.ref ?? (await this.#create(key, request));
  }

  /** The record of this key once it is unused; a new one when there is none. */
  async #waitFor(key: string, request: CacheMountRequest): Promise<MutableRef> {
    for (;;) {
      {
        using _lock = await this.#lock(key, request.ctx.signal);
        const found = await this.#takeUnused(key);
        if (found.ref) return found.ref;
        if (!found.inUse) return await this.#create(key, request);
      }
      await sleep(LOCK_POLL_MS, request.ctx.signal);
    }
  }

  async #takeUnused(key: string): Promise<{ ref?: MutableRef; inUse: boolean }> {
    let inUse = false;
    for (const id of this.#refs.search(`${KEY}:${key}`)) {
      try {
        return { ref: await this.#refs.getMutable(id), inUse };
      } catch (error) {
        if (isBuildError(error, "failed_precondition")) inUse = true;
        else if (!isBuildError(error, "not_found")) {
          process.emitWarning(`cache mount ${key}: record ${id} can't be used: ${String(error)}`);
        }
      }
    }
    return { inUse };
  }

  async #create(key: string, request: CacheMountRequest): Promise<MutableRef> {
    const ref = await this.#refs.newMutable(request.base, {
      recordType: "exec.cachemount",
      description: request.description,
      cachePolicy: "retain",
      ctx: request.ctx,
    });
    ref.metadata.setString(KEY, key, `${KEY}:${key}`);
    ref.metadata.setString(ID_KEY, request.id, `${ID_KEY}:${request.id}`);
    return ref;
  }

  /**
   * Forgets cache mounts by id, so that their next user starts afresh. A `true` value means those that started
   * with a tree, `false` those that started empty. Trees that nobody uses go at once, others after their last use.
   */
  async prune(ids: ReadonlyMap<string, boolean>): Promise<void> {
    for (const [id, withBase] of ids) {
      for (const record of this.#recordsOf(id, withBase)) await this.#forget(record);
    }
    this.#shares.clear();
  }

  #recordsOf(id: string, withBase: boolean): readonly string[] {
    if (!withBase) return this.#refs.search(`${KEY}:${id}`);
    const all = this.#refs.search(`${ID_KEY}:${id}`);
    return all.filter((record) => this.#refs.metadataOf(record)?.getString(KEY)?.startsWith(`${id}:`));
  }

  async #forget(record: string): Promise<void> {
    const metadata = this.#refs.metadataOf(record);
    metadata?.delete(KEY);
    metadata?.delete(ID_KEY);
    const active = this.#active.get(record);
    if (active) {
      active.setCachePolicy("default");
      return;
    }
    try {
      const ref = await this.#refs.getMutable(record);
      ref.setCachePolicy("default");
      await ref.release();
    } catch (error) {
      if (!isBuildError(error, "failed_precondition") && !isBuildError(error, "not_found")) throw error;
    }
  }
}

/** Description of the record that a step's cache mount makes. */
export function cacheMountDescription(dest: string, id: string, owner: string): string {
  const named = id === dest ? "" : ` with id ${quoteGo(id)}`;
  return `cached mount ${dest} from ${owner}${named}`;
}
