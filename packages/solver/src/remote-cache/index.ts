export { ChainKeyStore, chainSource, type RemoteResults } from "./chain-source.ts";
export { CacheChains, ChainRecord } from "./chains.ts";
export {
  CACHE_CONFIG_MEDIA_TYPE,
  type CacheConfig,
  type CacheConfigAnnotations,
  type CacheConfigLayer,
  type CacheConfigRecord,
  formatCacheConfig,
  formatNanoseconds,
  nanosecondsOf,
  parseCacheConfig,
  parseInlineRecords,
} from "./config.ts";
export { inlineConfig, inlineRecords } from "./inline.ts";
export { type CacheBlob, type MarshaledCache, type MarshalOptions, marshalChains } from "./marshal.ts";
export { type ImportedLayers, readCacheConfig } from "./parse.ts";
