export { applyLayer } from "./apply.ts";
export { type Change, type ChangeKind, ChangeWriter, typeOf } from "./change-writer.ts";
export { overlayChanges, sameFile, treeChanges } from "./changes.ts";
export { type CompressOptions, checkCompression, compress } from "./compress.ts";
export { type DecompressOptions, decompress, detectCompression, MAGIC_BYTES } from "./decompress.ts";
export { diffLayer, layerChanges } from "./diff.ts";
export type { EstargzResult } from "./estargz.ts";
export { GrowingFile, type GrowingFileMemory, readGrowing } from "./growing-file.ts";
export { copyFromLower, fixImplicitDirs } from "./layer-applier.ts";
export {
  type HashResult,
  type LayerJob,
  type LayerJobContext,
  type LayerJobResults,
  runLayerJob,
} from "./layer-job.ts";
export { LayerPool } from "./layer-pool.ts";
export { rewriteTar, rewriteTimestamps } from "./rewrite.ts";
export { encodeTarHeader, tarPadding, tarTrailer } from "./tar-encoder.ts";
export { DEFAULT_LIMITS, type TarHandler, TarReader, type TarReaderOptions } from "./tar-reader.ts";
export { type TarEntry, TarWriter, tarEntries } from "./tar-stream.ts";
export { ThreadPool } from "./thread-pool.ts";
export { serveJobs } from "./thread-server.ts";
export type * from "./types.ts";
