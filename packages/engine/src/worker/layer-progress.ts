import { errorMessage } from "@kiln/base";
import type { ProgressWriter } from "@kiln/solver";
import type { BlobProgress, LayerObserver, RefManager } from "@kiln/store";

/** How often a download is told of. */
const INTERVAL_MS = 150;

/**
 * Shows downloads and unpackings of the layers of a tree at the vertex that it was made or loaded by, for as
 * long as that vertex is needed. The vertex runs meanwhile.
 */
export function showLayers(
  refs: RefManager,
  id: string,
  ctx: { readonly progress: ProgressWriter; readonly cleanup: (fn: () => void) => void },
): void {
  const observed = refs.observe(id, layerProgress(ctx.progress));
  if (observed !== undefined) ctx.cleanup(() => observed[Symbol.dispose]());
}

/** Statuses in BuildKit's words: `<digest>` for a download, `extracting <digest>`. */
export function layerProgress(progress: ProgressWriter): LayerObserver {
  const downloads = new Map<string, { readonly startedMs: number; toldMs: number }>();
  const extractions = new Map<string, number>();
  const download = ({ digest, current, total, done }: BlobProgress): void => {
    const now = Date.now();
    const known = downloads.get(digest) ?? { startedMs: now, toldMs: now };
    downloads.set(digest, known);
    if (!done && now - known.toldMs < INTERVAL_MS) return;
    known.toldMs = now;
    const { startedMs } = known;
    progress.status({ id: digest, current, total, startedMs, ...(done ? { completedMs: now } : {}) });
    if (done) downloads.delete(digest);
  };
  const extraction = ({ digest, done }: BlobProgress): void => {
    const startedMs = extractions.get(digest);
    if (startedMs !== undefined && !done) return;
    const status = { id: `extracting ${digest}`, name: "extracting", startedMs: startedMs ?? Date.now() };
    extractions.set(digest, status.startedMs);
    progress.status(done ? { ...status, completedMs: Date.now() } : status);
    if (done) extractions.delete(digest);
  };
  return {
    begin: () => {
      const end = progress.resume();
      return (error) => end(error === undefined ? undefined : errorMessage(error));
    },
    progress: (update) => {
      if (update.action === "downloading") download(update);
      else if (update.action === "extracting") extraction(update);
    },
  };
}
