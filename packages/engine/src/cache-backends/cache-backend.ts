import type { HttpTransport, Registries } from "@kiln/registry";
import type { SessionManager } from "@kiln/session";
import type { CacheChains, MarshaledCache } from "@kiln/solver/remote-cache";
import type { CompressionOptions } from "@kiln/store";
import type { OpContext } from "../op-context.ts";
import type { SessionAuthenticators } from "../sources/source-sessions.ts";
import type { CacheAttrs, CacheEnv } from "./cache-attrs.ts";
import type { CacheBlobs } from "./cache-blobs.ts";

/** What backends work with. */
export interface CacheBackendHost {
  readonly registries: Registries;
  readonly authenticators: SessionAuthenticators;
  readonly sessions: SessionManager;
  readonly blobs: CacheBlobs;
  readonly env: CacheEnv;
  /** For object stores. */
  readonly transport: HttpTransport;
}

/** An export bound to its attributes. */
export interface CacheSender {
  readonly compression: CompressionOptions;
  /** Stores a cache. @returns keys for `ExporterResponse`. */
  send(cache: MarshaledCache, ctx: OpContext): Promise<ReadonlyMap<string, string>>;
}

/** An import bound to its attributes. */
export interface CacheReader {
  /** Finds the cache. One that isn't there is an error, or an empty one, as in BuildKit. */
  open(ctx: OpContext): Promise<OpenedCache>;
}

/** A cache that has been found. */
export interface OpenedCache {
  /** Adds what it has to `chains`. */
  read(chains: CacheChains): Promise<void>;
}

/** A kind of remote cache. Both ways throw BuildError `invalid_argument` for attributes they can't take. */
export interface CacheBackend {
  /** Name of the export's vertex. */
  readonly exportName: string;
  exporter(attrs: CacheAttrs): CacheSender;
  importer(attrs: CacheAttrs): CacheReader;
}
