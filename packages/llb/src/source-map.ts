import type { Definition } from "./definition.ts";

/** Lines count from 1, characters from 0. */
export interface Position {
  readonly line: number;
  readonly character: number;
}

export interface Range {
  readonly start: Position;
  readonly end: Position;
}

/** A file that vertices come from. */
export interface SourceMap {
  readonly filename: string;
  readonly language: string;
  readonly data: Uint8Array;
  /** How the file itself can be read again. */
  readonly definition?: Definition | undefined;
}

/** Places in one file. */
export interface SourceLocation {
  readonly map: SourceMap;
  readonly ranges: readonly Range[];
}

/** A file of a definition, with the index that locations refer to. */
export interface DefinitionSource {
  readonly infos: readonly SourceMap[];
  readonly locations: ReadonlyMap<string, readonly IndexedLocation[]>;
}

export interface IndexedLocation {
  readonly sourceIndex: number;
  readonly ranges: readonly Range[];
}

/** Gathers the locations of a definition's vertices; equal files are listed once. */
export class SourceCollector {
  readonly #infos: SourceMap[] = [];
  readonly #index = new Map<SourceMap, number>();
  readonly #locations = new Map<string, IndexedLocation[]>();

  add(digest: string, locations: readonly SourceLocation[]): void {
    let list = this.#locations.get(digest);
    if (list === undefined) {
      list = [];
      this.#locations.set(digest, list);
    }
    for (const location of locations) {
      list.push({ sourceIndex: this.#indexOf(location.map), ranges: location.ranges });
    }
  }

  finish(): DefinitionSource {
    return { infos: this.#infos, locations: this.#locations };
  }

  #indexOf(map: SourceMap): number {
    const known = this.#index.get(map);
    if (known !== undefined) return known;
    let index = this.#infos.findIndex((other) => sameFile(other, map));
    if (index < 0) index = this.#infos.push(map) - 1;
    this.#index.set(map, index);
    return index;
  }
}

function sameFile(a: SourceMap, b: SourceMap): boolean {
  if (a.filename !== b.filename || a.language !== b.language) return false;
  if (!sameBytes(a.data, b.data)) return false;
  const x = a.definition?.def.at(-1);
  const y = b.definition?.def.at(-1);
  return x === undefined || y === undefined || sameBytes(x, y);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
