import type { State } from "@kiln/llb";
import type { Platform } from "@kiln/oci";
import type { ResolvedImage, ResolveImageOptions } from "../frontend/backend.ts";
import type { Image } from "./image.ts";

/** How a named context is looked up. */
export interface NamedContextOptions {
  readonly platform?: Platform | undefined;
  readonly resolveMode?: string | undefined;
  /** Paths that the build uses; asked when the definition is made. */
  readonly followPaths?: (() => readonly string[]) | undefined;
}

/** A context that the client gave a name. */
export interface NamedContext {
  load(): Promise<{ readonly state: State; readonly image: Image | undefined }>;
}

/** What the compiler asks the outside for. The frontend and the library's simple entry implement it. */
export interface CompileHost {
  readonly llbCaps: ReadonlySet<string>;
  resolveImage(ref: string, options: ResolveImageOptions): Promise<ResolvedImage>;
  /** Undefined when no context has that name. Throws a problem for a name that is no image name. */
  namedContext(name: string, options: NamedContextOptions): NamedContext | undefined;
  /** The build context, limited to some paths unless there are none. */
  mainContext(followPaths: readonly string[]): Promise<State>;
  /** Patterns of the ignore file. */
  ignorePatterns(): Promise<readonly string[]>;
  /** True when the cache is to be ignored for a stage. */
  ignoresCache(stage: string): boolean;
  /**
   * Seconds since the epoch that a source was last changed; undefined when it can't be said. Without it
   * only integers are taken for `SOURCE_DATE_EPOCH`.
   */
  epochOf?(state: State, logName: string): Promise<bigint | undefined>;
}
