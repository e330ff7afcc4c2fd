import type { Owner } from "./copier.ts";

/**
 * One file action as the worker thread gets it: plain data, roots as mounted directories. Owners are
 * resolved before; times are nanoseconds, undefined keeps the clock's (or the source's).
 */
export type PlainAction =
  | {
      readonly kind: "mkdir";
      readonly root: string;
      readonly path: string;
      readonly mode: number;
      readonly makeParents: boolean;
      readonly owner: Owner | undefined;
      readonly timeNs: bigint | undefined;
    }
  | {
      readonly kind: "mkfile";
      readonly root: string;
      readonly path: string;
      readonly mode: number;
      readonly data: Uint8Array;
      readonly owner: Owner | undefined;
      readonly timeNs: bigint | undefined;
    }
  | {
      readonly kind: "symlink";
      readonly root: string;
      readonly oldpath: string;
      readonly newpath: string;
      readonly owner: Owner | undefined;
      readonly timeNs: bigint | undefined;
    }
  | {
      readonly kind: "rm";
      readonly root: string;
      readonly path: string;
      readonly allowNotFound: boolean;
      readonly allowWildcard: boolean;
    }
  | PlainCopy;

/** The copy action; `source` and `root` are the two trees. */
export interface PlainCopy {
  readonly kind: "copy";
  readonly source: string;
  readonly root: string;
  readonly src: string;
  readonly dest: string;
  readonly owner: Owner | undefined;
  /** Octal mode for everything, -1 keeps each file's. */
  readonly mode: number;
  readonly modeStr: string;
  readonly followSymlink: boolean;
  readonly dirCopyContents: boolean;
  readonly attemptUnpack: boolean;
  readonly createDestPath: boolean;
  readonly allowWildcard: boolean;
  readonly allowEmptyWildcard: boolean;
  readonly includePatterns: readonly string[];
  readonly excludePatterns: readonly string[];
  readonly alwaysReplace: boolean;
  readonly timeNs: bigint | undefined;
}
