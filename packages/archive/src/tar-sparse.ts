import { invalidHeader } from "./tar-format.ts";

/** Bytes of a sparse file that are stored. */
export interface SparseEntry {
  readonly offset: number;
  readonly length: number;
}

/** Appends an entry. @throws `invalid_argument` for one that can't be */
export function addSparseEntry(map: SparseEntry[], entry: SparseEntry): void {
  const { offset, length } = entry;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw invalidHeader("sparse map");
  }
  map.push(entry);
}

/** Reads `offset SEP length SEP offset …`. */
export function parseSparsePairs(text: string, separator: string): SparseEntry[] {
  const map: SparseEntry[] = [];
  const numbers = text === "" ? [] : text.split(separator);
  if (numbers.length % 2 !== 0) throw invalidHeader("sparse map");
  for (let i = 0; i < numbers.length; i += 2) {
    const pair = [numbers[i], numbers[i + 1]];
    if (!pair.every((digits) => /^\d{1,16}$/.test(digits ?? ""))) throw invalidHeader("sparse map");
    addSparseEntry(map, { offset: Number(pair[0]), length: Number(pair[1]) });
  }
  return map;
}

/**
 * Checks that the pieces are in order, inside the file, and as long as what is stored. Empty pieces are
 * dropped, except that one may mark the end.
 *
 * @throws `invalid_argument`
 */
export function checkSparseMap(map: SparseEntry[], size: number, storedBytes: number): void {
  let end = 0;
  let total = 0;
  for (const entry of map) {
    if (entry.offset < end || entry.offset + entry.length > size) throw invalidHeader("sparse map");
    end = entry.offset + entry.length;
    total += entry.length;
  }
  if (total !== storedBytes) throw invalidHeader("sparse map does not match the content");
  const kept = map.filter((entry) => entry.length > 0);
  map.splice(0, map.length, ...kept);
}
