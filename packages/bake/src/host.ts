/** What `stat` tells about a path, links followed. */
export interface HostStat {
  readonly kind: "file" | "directory" | "socket" | "other";
  readonly size: number;
}

/**
 * The machine as a bake definition sees it. Everything that evaluation reads comes through here, so that a
 * caller can evaluate in a browser, or without access to files.
 */
export interface BakeHost {
  /** The working directory, absolute. Relative paths of a definition start here. */
  readonly cwd: string;
  /** `BAKE_LOCAL_PLATFORM`, such as `linux/amd64`. */
  readonly localPlatform: string;
  /** The whole of a file, `undefined` when there is none; other failures are thrown with a readable message. */
  readFile(path: string): Uint8Array | undefined;
  /** What stands at a path, `undefined` for nothing. */
  stat(path: string): HostStat | undefined;
  /** The path with all links resolved, `undefined` when it doesn't exist. */
  realPath(path: string): string | undefined;
  /** One environment variable. */
  env(name: string): string | undefined;
  /** The whole environment, in any order. */
  environ(): Iterable<readonly [name: string, value: string]>;
  /** For `homedir()`. */
  homeDir(): string;
  /** For `timestamp()`. */
  now(): Date;
  /** For `uuidv4()` and `bcrypt()`. */
  randomBytes(count: number): Uint8Array;
}

/** One file of a definition. `name` is as the user gave it and shows in messages; `-` is standard input. */
export interface BakeFile {
  readonly name: string;
  readonly data: Uint8Array;
}
