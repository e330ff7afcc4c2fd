/**
 * How to see a piece of a file system; containerd's `mount.Mount`. `options` are those of mount(8) (`ro`,
 * `rbind`, `lowerdir=…`), flags and file system data mixed.
 */
export interface Mount {
  /** `bind`, `rbind`, `overlay`, `tmpfs`, `proc` …; for a bind mount the file system is that of `source`. */
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
  /** Path below the target of {@link mountAll} where this one goes; the target itself when absent. */
  readonly target?: string;
}

/** A directory that shows some mounts for as long as it isn't disposed of. */
export interface LocalMount extends Disposable {
  readonly path: string;
}
