/**
 * Collects things to undo, in reverse order of their adding. Dispose of it with `await using`, or call
 * {@link DisposableStore.move} when ownership passes on.
 *
 * Every disposer runs, also after one has thrown; the first error is thrown at the end.
 */
export class DisposableStore implements AsyncDisposable {
  #items: (() => unknown)[] = [];

  /** Registers and returns `item`. */
  use<T extends Disposable | AsyncDisposable>(item: T): T {
    this.#items.push(() =>
      Symbol.asyncDispose in item ? item[Symbol.asyncDispose]() : item[Symbol.dispose](),
    );
    return item;
  }

  /** Registers a function to run on disposal; what it returns is awaited. */
  defer(undo: () => unknown): void {
    this.#items.push(undo);
  }

  /** Hands everything registered so far to a new store; this one then disposes of nothing. */
  move(): DisposableStore {
    const next = new DisposableStore();
    next.#items = this.#items;
    this.#items = [];
    return next;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const items = this.#items;
    this.#items = [];
    const errors: unknown[] = [];
    for (const undo of items.reverse()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
