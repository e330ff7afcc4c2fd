import { BuildError } from "@kiln/base";

/** What the pool is made of. */
export interface NetnsPoolOptions<T> {
  /** How many are kept ready. */
  readonly targetSize: number;
  make(): Promise<T>;
  remove(value: T): Promise<void>;
  /** How long one beyond the target is kept for the next user. */
  readonly graceMs?: number;
  onError(error: unknown): void;
}

const GRACE_MS = 5 * 60_000;

/** Keeps network namespaces that are set up already, because setting one up takes longer than most steps. */
export class NetnsPool<T> implements AsyncDisposable {
  readonly #options: NetnsPoolOptions<T>;
  readonly #idle: { readonly value: T; readonly sinceMs: number }[] = [];
  readonly #graceMs: number;
  #size = 0;
  #closed = false;
  #filling = Promise.resolve();

  constructor(options: NetnsPoolOptions<T>) {
    this.#options = options;
    this.#graceMs = options.graceMs ?? GRACE_MS;
  }

  /** Makes what is missing to the target, in the background. */
  fill(): void {
    this.#filling = this.#fill().catch((error: unknown) => this.#options.onError(error));
  }

  async #fill(): Promise<void> {
    while (!this.#closed && this.#size < this.#options.targetSize) this.put(await this.#make());
  }

  async #make(): Promise<T> {
    if (this.#closed) throw new BuildError("unavailable", "network namespace pool is closed");
    this.#size++;
    try {
      return await this.#options.make();
    } catch (error) {
      this.#size--;
      throw error;
    }
  }

  async get(): Promise<T> {
    const idle = this.#idle.pop();
    return idle ? idle.value : await this.#make();
  }

  /** Gives one back for the next user. */
  put(value: T): void {
    if (this.#closed) {
      this.#remove(value);
      return;
    }
    this.#idle.push({ value, sinceMs: Date.now() });
    if (this.#size > this.#options.targetSize) setTimeout(() => this.#shrink(), this.#graceMs).unref();
  }

  #shrink(): void {
    while (this.#size > this.#options.targetSize) {
      const [oldest] = this.#idle;
      if (!oldest || Date.now() - oldest.sinceMs < this.#graceMs) return;
      this.#idle.shift();
      this.#remove(oldest.value);
    }
  }

  #remove(value: T): void {
    this.#size--;
    this.#options.remove(value).catch((error: unknown) => this.#options.onError(error));
  }

  /** Removes those that nobody uses; the others go when they are given back. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#filling;
    const idle = this.#idle.splice(0);
    this.#size -= idle.length;
    const results = await Promise.allSettled(idle.map(({ value }) => this.#options.remove(value)));
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
  }
}
