interface Entry {
  readonly value: string;
  /** Position among all assignments; a later assignment moves a name to the end. */
  readonly order: number;
}

interface Undo {
  readonly owner: EnvList;
  readonly key: string;
  readonly entry: Entry | undefined;
}

/**
 * Immutable list of environment variables in the order of their last assignment.
 *
 * One map is shared by all versions of a list and belongs to the version used last; the others know what to
 * change in it. Extending a list and reading the newest version cost the same however long the list is.
 */
export class EnvList {
  static readonly empty: EnvList = new EnvList(new Map(), undefined, 0);

  #map: Map<string, Entry> | undefined;
  #undo: Undo | undefined;
  readonly #next: number;
  #array: readonly string[] | undefined;

  private constructor(map: Map<string, Entry> | undefined, undo: Undo | undefined, next: number) {
    this.#map = map;
    this.#undo = undo;
    this.#next = next;
  }

  /** A list from `NAME=value` strings. */
  static from(entries: readonly string[]): EnvList {
    let list = EnvList.of();
    for (const entry of entries) {
      const at = entry.indexOf("=");
      list = at < 0 ? list.set(entry, "") : list.set(entry.slice(0, at), entry.slice(at + 1));
    }
    return list;
  }

  /** A new empty list, which shares nothing with others. */
  static of(): EnvList {
    return new EnvList(new Map(), undefined, 0);
  }

  get(key: string): string | undefined {
    return this.#own().get(key)?.value;
  }

  has(key: string): boolean {
    return this.#own().has(key);
  }

  set(key: string, value: string): EnvList {
    return this.#change(key, { value, order: this.#next });
  }

  delete(key: string): EnvList {
    return this.#change(key, undefined);
  }

  /** The list with `key` set, unless it is there. */
  setDefault(key: string, value: string): EnvList {
    return this.has(key) ? this : this.set(key, value);
  }

  /** Names, in the order of their last assignment. */
  keys(): string[] {
    return this.#sorted().map(([key]) => key);
  }

  /** `NAME=value` strings, in the order of {@link keys}. */
  toArray(): readonly string[] {
    this.#array ??= this.#sorted().map(([key, entry]) => `${key}=${entry.value}`);
    return this.#array;
  }

  #sorted(): [string, Entry][] {
    return [...this.#own()].sort((a, b) => a[1].order - b[1].order);
  }

  #change(key: string, entry: Entry | undefined): EnvList {
    if (this === EnvList.empty) return EnvList.of().#change(key, entry);
    const map = this.#own();
    const next = new EnvList(map, undefined, this.#next + 1);
    this.#map = undefined;
    this.#undo = { owner: next, key, entry: map.get(key) };
    assign(map, key, entry);
    return next;
  }

  /** Takes the map over from the version that has it. */
  #own(): Map<string, Entry> {
    if (this.#map !== undefined) return this.#map;
    const path: EnvList[] = [];
    let at: EnvList = this;
    while (at.#map === undefined) {
      path.push(at);
      at = at.#undo!.owner;
    }
    const map = at.#map;
    for (let version = path.pop(); version !== undefined; version = path.pop()) {
      const { key, entry } = version.#undo!;
      at.#map = undefined;
      at.#undo = { owner: version, key, entry: map.get(key) };
      assign(map, key, entry);
      version.#map = map;
      version.#undo = undefined;
      at = version;
    }
    return map;
  }
}

function assign(map: Map<string, Entry>, key: string, entry: Entry | undefined): void {
  if (entry === undefined) map.delete(key);
  else map.set(key, entry);
}
