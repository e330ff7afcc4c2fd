import type { SolveStatus } from "@kiln/solver";

/** Progress may wait this long for more of it. */
export const STATUS_DELAY_MS = 20;

/**
 * Puts together what follows within `delayMs`, in order. A vertex that only looks at its cache key before it
 * is made has two short intervals; shown as they come, clients would print it as done twice.
 */
export async function* batchStatus(
  progress: AsyncIterable<SolveStatus>,
  delayMs: number,
): AsyncGenerator<SolveStatus> {
  const source = progress[Symbol.asyncIterator]();
  try {
    let next = source.next();
    for (;;) {
      const first = await next;
      if (first.done === true) return;
      const batch = [first.value];
      next = source.next();
      // looked at below in any case; a failure in between must not count as unhandled
      next.catch(() => undefined);
      let timer: NodeJS.Timeout | undefined;
      const timeout = new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), delayMs);
      });
      for (;;) {
        const more = await Promise.race([next, timeout]).catch(() => undefined);
        if (more === undefined || more.done === true) break;
        batch.push(more.value);
        next = source.next();
        next.catch(() => undefined);
      }
      clearTimeout(timer);
      yield joined(batch);
    }
  } finally {
    await source.return?.();
  }
}

function joined(batch: readonly SolveStatus[]): SolveStatus {
  const [only, second] = batch;
  if (only !== undefined && second === undefined) return only;
  return {
    vertexes: batch.flatMap((one) => one.vertexes),
    statuses: batch.flatMap((one) => one.statuses),
    logs: batch.flatMap((one) => one.logs),
    warnings: batch.flatMap((one) => one.warnings),
  };
}
