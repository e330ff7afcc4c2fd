import type { Platform } from "@kiln/oci";
import type { SourceLocation } from "./source-map.ts";

/** Vertices with the same id are shown as one; the weak ones give way to the name of the other. */
export interface ProgressGroup {
  readonly id: string;
  readonly name: string;
  readonly weak?: boolean | undefined;
}

/** Limits of one step. They travel beside the op and aren't part of its digest. */
export interface LinuxResources {
  readonly memory?: bigint | undefined;
  readonly memorySwap?: bigint | undefined;
  readonly cpuShares?: bigint | undefined;
  readonly cpuPeriod?: bigint | undefined;
  readonly cpuQuota?: bigint | undefined;
  readonly cpusetCpus?: string | undefined;
  readonly cpusetMems?: string | undefined;
}

/** What goes with an op without being part of its digest. */
export interface OpMetadata {
  readonly ignoreCache: boolean;
  readonly description: ReadonlyMap<string, string>;
  /** Undefined leaves it to the build. */
  readonly exportCache?: boolean | undefined;
  readonly caps: ReadonlySet<string>;
  readonly progressGroup?: ProgressGroup | undefined;
  readonly linuxResources?: LinuxResources | undefined;
}

/** Options that every op takes. */
export interface OpOptions {
  /** Platform of the op; by default that of its state, else the default of {@link MarshalOptions}. */
  readonly platform?: Platform | undefined;
  /** Worker filters, each as `key==value`. */
  readonly constraints?: readonly string[] | undefined;
  /** Name in the progress (`llb.customname`). */
  readonly name?: string | undefined;
  /** Further description; `name` wins over its `llb.customname`. */
  readonly description?: Readonly<Record<string, string>> | undefined;
  /** Runs the op even if its result is cached. */
  readonly ignoreCache?: boolean | undefined;
  readonly exportCache?: boolean | undefined;
  readonly progressGroup?: ProgressGroup | undefined;
  readonly linuxResources?: LinuxResources | undefined;
  /** Where the op stands in the user's file. */
  readonly location?: SourceLocation | readonly SourceLocation[] | undefined;
  /** Capabilities that the op needs beside those that its options imply. */
  readonly caps?: readonly string[] | undefined;
}

/** Description key of a vertex's name. */
export const CUSTOM_NAME = "llb.customname";

/** What {@link OpOptions} say about metadata, with the capabilities `caps` of the op itself. */
export function metadataOf(options: OpOptions, caps: Iterable<string>): OpMetadata {
  const description = new Map<string, string>();
  if (options.description !== undefined) {
    for (const key of Object.keys(options.description)) description.set(key, options.description[key]!);
  }
  if (options.name !== undefined) description.set(CUSTOM_NAME, options.name);
  const all = new Set(caps);
  for (const cap of options.caps ?? []) all.add(cap);
  return {
    ignoreCache: options.ignoreCache ?? false,
    description,
    exportCache: options.exportCache,
    caps: all,
    progressGroup: options.progressGroup,
    linuxResources: options.linuxResources,
  };
}

/** Adds what `more` says; where both speak, `more` wins. */
export function mergeMetadata(base: OpMetadata | undefined, more: OpMetadata): OpMetadata {
  if (base === undefined) return more;
  return {
    ignoreCache: base.ignoreCache || more.ignoreCache,
    description: new Map([...base.description, ...more.description]),
    exportCache: more.exportCache ?? base.exportCache,
    caps: base.caps.union(more.caps),
    progressGroup: more.progressGroup ?? base.progressGroup,
    linuxResources: more.linuxResources ?? base.linuxResources,
  };
}

/** Locations as a list. */
export function locationsOf(options: OpOptions): readonly SourceLocation[] {
  if (options.location === undefined) return [];
  return "map" in options.location && "ranges" in options.location
    ? [options.location as SourceLocation]
    : (options.location as readonly SourceLocation[]);
}
