/** Buildx's configuration directory: where it is, and how files are written so that Buildx reads them. */
import { chownSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { randomHex } from "@kiln/formats";

/** The environment that paths depend on. */
export type Env = Readonly<Record<string, string | undefined>>;

/** The directory of Docker's `config.json`. */
export function dockerConfigDir(env: Env): string {
  return env.DOCKER_CONFIG || join(env.HOME || homedir(), ".docker");
}

/**
 * One configuration directory. Directories are 0700; files appear whole or not at all, and belong to the user
 * who called `sudo` when the directory does.
 */
export class ConfigDir {
  readonly path: string;
  readonly #owner: { uid: number; gid: number } | undefined;

  constructor(path: string, env: Env = {}) {
    this.path = path;
    this.#owner = sudoOwner(path, env);
  }

  /** `BUILDX_CONFIG`, else `buildx` beside Docker's `config.json`. */
  static fromEnv(env: Env): ConfigDir {
    return new ConfigDir(env.BUILDX_CONFIG || join(dockerConfigDir(env), "buildx"), env);
  }

  /** A file's text, undefined when there is none. */
  read(name: string): string | undefined {
    try {
      return readFileSync(join(this.path, name), "utf8");
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  makeDir(name: string): void {
    const created = mkdirSync(join(this.path, name), { recursive: true, mode: 0o700 });
    if (this.#owner && created !== undefined) {
      for (let dir = join(this.path, name); dir.length >= created.length; dir = dirname(dir)) {
        chownSync(dir, this.#owner.uid, this.#owner.gid);
      }
    }
  }

  /** Writes a file. One that may be lost with the machine (`volatile`) isn't waited for until it's on the disk. */
  write(
    name: string,
    text: string,
    opts: { readonly mode?: number; readonly volatile?: boolean } = {},
  ): void {
    const file = join(this.path, name);
    this.makeDir(dirname(name));
    const temporary = `${file}.tmp-${randomHex(6)}`;
    try {
      writeFileSync(temporary, text, { mode: opts.mode ?? 0o600, flush: !opts.volatile });
      if (this.#owner) chownSync(temporary, this.#owner.uid, this.#owner.gid);
      renameSync(temporary, file);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  }

  remove(name: string): void {
    rmSync(join(this.path, name), { recursive: true, force: true });
  }

  /** The random name of this machine that salts the keys of shared directories. */
  nodeIdentifier(): string {
    const known = this.read(".buildNodeID");
    if (known !== undefined) return known;
    const id = randomHex(8);
    this.write(".buildNodeID", id);
    return id;
  }
}

/** True for `ENOENT` and `ENOTDIR`. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

/** Under `sudo`, the caller's ids, if the directory (or its nearest existing parent) is the caller's. */
function sudoOwner(path: string, env: Env): { uid: number; gid: number } | undefined {
  const uid = Number(env.SUDO_UID);
  const gid = Number(env.SUDO_GID);
  if (!env.SUDO_UID || !env.SUDO_GID || !Number.isInteger(uid) || !Number.isInteger(gid)) return undefined;
  if (process.getuid?.() !== 0) return undefined;
  for (let dir = path; ; dir = dirname(dir)) {
    try {
      return statSync(dir).uid === uid ? { uid, gid } : undefined;
    } catch (error) {
      if (!isMissing(error) || dir === dirname(dir)) return undefined;
    }
  }
}
