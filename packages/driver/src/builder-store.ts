/** The builders in Buildx's configuration directory. Both tools may use it at the same time. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { BuildError, sleep } from "@kiln/base";
import { goJson } from "@kiln/formats";
import { sha256Hex } from "@kiln/oci";
import { type ConfigDir, isMissing } from "./config-dir.ts";
import { LocalState } from "./local-state.ts";
import { decodeNodeGroup, encodeNodeGroup, type NodeGroup, parseObject, validateName } from "./node-group.ts";

const LOCK_RETRY_MS = 20;
const LOCK_TIMEOUT_MS = 30_000;

/** Which builder was chosen, under which endpoint key, and whether for all keys. */
interface Current {
  readonly key: string;
  readonly name: string;
  readonly global: boolean;
}

/**
 * Reads and writes builders. Every file appears whole, so reading needs no lock; whoever reads, decides and
 * writes does it within {@link locked}.
 */
export class BuilderStore {
  readonly config: ConfigDir;
  readonly localState: LocalState;

  constructor(config: ConfigDir) {
    this.config = config;
    this.localState = new LocalState(config);
  }

  /** Runs `work` while no other process changes the store. */
  async locked<T>(work: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    for (const dir of ["instances", "defaults", "activity"]) this.config.makeDir(dir);
    const { tryLockFile } = await import("@kiln/sys");
    const path = join(this.config.path, ".lock");
    const deadline = Date.now() + LOCK_TIMEOUT_MS;
    for (;;) {
      using lock = tryLockFile(path);
      if (lock) return await work();
      if (Date.now() > deadline) {
        throw new BuildError("deadline_exceeded", `another process holds the lock ${path}`);
      }
      await sleep(LOCK_RETRY_MS, signal);
    }
  }

  /** All builders by name. */
  list(): NodeGroup[] {
    let names: string[];
    try {
      names = readdirSync(join(this.config.path, "instances"));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
    return names
      .filter((name) => !name.includes(".tmp-"))
      .sort()
      .flatMap((name) => this.find(name) ?? []);
  }

  /** The builder of a name; undefined when there is none. @throws BuildError for a text that is no name. */
  find(name: string): NodeGroup | undefined {
    const file = `instances/${validateName(name)}`;
    const text = this.config.read(file);
    return text === undefined ? undefined : decodeNodeGroup(text, join(this.config.path, file));
  }

  save(group: NodeGroup): void {
    const name = validateName(group.name);
    this.touch(name);
    this.config.write(`instances/${name}`, encodeNodeGroup(group));
  }

  remove(name: string): void {
    const valid = validateName(name);
    this.config.remove(`activity/${valid}`);
    this.localState.removeBuilder(valid);
    this.config.remove(`instances/${valid}`);
  }

  /** Notes that a builder was used now. */
  touch(name: string): void {
    this.config.write(`activity/${name}`, `${new Date().toISOString().slice(0, 19)}Z`, { volatile: true });
  }

  lastActivity(name: string): Date | undefined {
    const text = this.config.read(`activity/${name}`);
    const time = text === undefined ? Number.NaN : Date.parse(text);
    return Number.isNaN(time) ? undefined : new Date(time);
  }

  /** Chooses a builder for an endpoint key; an empty name clears the choice. */
  setCurrent(current: Current & { readonly asDefault: boolean }): void {
    this.#writeCurrent(current);
    const file = defaultsFile(current.key);
    if (current.asDefault) this.config.write(file, current.name);
    else this.config.remove(file);
  }

  /**
   * The builder chosen for a key, undefined for none. A choice under another key is forgotten by this, unless it
   * is global: so Buildx does it, and both must agree.
   */
  current(key: string): NodeGroup | undefined {
    const current = this.#readCurrent();
    if (current && current.name !== "") {
      const group = this.#findOrUndefined(current.name);
      if (current.global && group) return group;
      if (current.key === key) return group;
    }
    const name = this.config.read(defaultsFile(key));
    if (name === undefined) {
      if (current !== undefined && current.key !== key) this.#writeCurrent({ key, name: "", global: false });
      return undefined;
    }
    this.setCurrent({ key, name, global: false, asDefault: true });
    return this.#findOrUndefined(name);
  }

  #findOrUndefined(name: string): NodeGroup | undefined {
    return /^[a-zA-Z][a-zA-Z0-9.\-_]*$/.test(name) ? this.find(name) : undefined;
  }

  #readCurrent(): Current | undefined {
    const text = this.config.read("current");
    if (text === undefined) return undefined;
    const data = parseObject(text, join(this.config.path, "current"));
    return { key: String(data.Key ?? ""), name: String(data.Name ?? ""), global: data.Global === true };
  }

  #writeCurrent(current: Current): void {
    this.config.write("current", goJson({ Key: current.key, Name: current.name, Global: current.global }));
  }
}

function defaultsFile(key: string): string {
  return `defaults/${sha256Hex(key).slice(0, 20)}`;
}
