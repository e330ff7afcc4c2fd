import type { Change } from "./change-writer.ts";
import { ChangeWriter } from "./change-writer.ts";
import { overlayChanges, treeChanges } from "./changes.ts";
import type { DiffOptions } from "./types.ts";

/** The changes that a {@link diffLayer} of these options would write. */
export function layerChanges(opts: DiffOptions): Generator<Change> {
  if (opts.overlayUpperDir === undefined) return treeChanges(opts.lowerDir, opts.upperDir);
  return overlayChanges(opts.lowerDir, opts.overlayUpperDir, opts.overlayXattrPrefix ?? "trusted.");
}

/**
 * The difference between two trees as a layer's tar, in pieces of about 1 MiB; the work is done as the
 * pieces are asked for, synchronously, so run it in a worker. A piece is good until the next one is asked for.
 *
 * @throws the reason of `signal`
 */
export function* diffLayer(opts: DiffOptions): Generator<Uint8Array> {
  const writer = new ChangeWriter(opts.overlayUpperDir ?? opts.upperDir, opts.sourceDateEpoch);
  for (const change of layerChanges(opts)) {
    opts.signal?.throwIfAborted();
    yield* writer.write(change);
  }
  yield* writer.finish();
}
