import { createHash } from "node:crypto";
import type { Digest } from "@kiln/oci";
import { type DecompressOptions, decompress } from "./decompress.ts";
import { LayerApplier } from "./layer-applier.ts";
import { TarReader } from "./tar-reader.ts";
import type { ApplyOptions, ApplyResult } from "./types.ts";

/** Chunks between two visits to the event loop, so that cancelling gets through. */
const CHUNKS_PER_TURN = 16;

/**
 * Unpacks a layer (compressed or not) below `dir`, which exists, and tells the digest of its uncompressed
 * bytes. Nothing outside `dir` is touched, whatever the layer holds. After an error `dir` holds a part of it.
 *
 * @throws `invalid_argument` for a broken layer, `resource_exhausted` over a limit, the reason of `signal`
 */
export async function applyLayer(
  source: AsyncIterable<Uint8Array>,
  dir: string,
  opts: ApplyOptions & Pick<DecompressOptions, "kind">,
): Promise<ApplyResult> {
  const hash = createHash("sha256");
  const applier = new LayerApplier(dir, opts);
  let tarBytes = 0;
  let chunks = 0;
  try {
    const reader = new TarReader(applier, opts.limits ? { limits: opts.limits } : {});
    for await (const chunk of decompress(source, opts)) {
      hash.update(chunk);
      tarBytes += chunk.length;
      reader.write(chunk);
      if (++chunks % CHUNKS_PER_TURN === 0) await new Promise(setImmediate);
      opts.signal?.throwIfAborted();
    }
    reader.finish();
    applier.finish();
  } finally {
    applier.close();
  }
  return {
    diffId: `sha256:${hash.digest("hex")}` as Digest,
    tarBytes,
    sizeBytes: applier.sizeBytes,
    inodes: applier.inodes,
    implicitDirs: applier.implicitDirs,
  };
}
