export {
  type AlternateInput,
  CacheKey,
  type CacheKeyInit,
  type CacheKeyLink,
  type CacheKeyOrigin,
  type CacheRecord,
  CONTENT_OUTPUT,
  contentKey,
  isContentKey,
} from "./cache/cache-key.ts";
export { releaseUnreferenced } from "./cache/cache-query.ts";
export type {
  CacheLoadContext,
  CacheResultStore,
  CacheSource,
  PendingCacheSource,
  Remote,
  RemoteDescriptor,
} from "./cache/cache-source.ts";
export {
  type CacheBacklink,
  type CacheKeyStore,
  type CacheLinkInfo,
  type CacheResultInfo,
  linkKey,
} from "./cache/key-store.ts";
export { MemoryKeyStore } from "./cache/memory-key-store.ts";
export type { CachedResult } from "./cached-result.ts";
export { digestOfText, rootKey } from "./digest.ts";
export { type CacheExportMode, type CacheExportOptions, exportCache } from "./export/export-cache.ts";
export type { CacheExportLink, CacheExportResult, CacheExportTarget } from "./export/target.ts";
export { failedVertex } from "./failure.ts";
export type { Job, RanVertex } from "./job.ts";
export type {
  LogProgress,
  ProgressGroup,
  ProgressWriter,
  SolveStatus,
  StatusProgress,
  StatusUpdate,
  VertexProgress,
  WarningProgress,
  WarningRange,
  WarningUpdate,
} from "./progress/status.ts";
export { Solver, type SolverOptions } from "./solver.ts";
export { randomId, systemTimers, type Timers } from "./timers.ts";
export type {
  BuildOptions,
  CacheMap,
  CacheMapAnswer,
  CacheMapDep,
  Edge,
  Failure,
  InternalVertex,
  OpContext,
  OpRunner,
  ResolverCache,
  ResolverLock,
  ResultHooks,
  SessionGroup,
  Vertex,
  VertexOptions,
} from "./types.ts";
