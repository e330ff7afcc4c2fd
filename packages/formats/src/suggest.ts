/** Edits further away than this aren't suggested; HCL's and BuildKit's bound. */
const MAX_DISTANCE = 2;
/** Longer words are not compared. */
const MAX_LENGTH = 512;

/** Least number of insertions, deletions and replacements of characters between two texts. */
export function levenshtein(a: string, b: string): number {
  const x = Array.from(a);
  const y = Array.from(b);
  let row = Array.from({ length: y.length + 1 }, (_, i) => i);
  for (let i = 1; i <= x.length; i++) {
    const next = [i];
    for (let j = 1; j <= y.length; j++) {
      const replaced = row[j - 1]! + (x[i - 1] === y[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[y.length]!;
}

/**
 * The option that was probably meant by `text`, at most two edits away; the first of equals. Undefined when
 * there is none or `text` is itself an option. Unless `caseSensitive`, the answer takes the case of `text`.
 */
export function suggest(text: string, options: Iterable<string>, caseSensitive: boolean): string | undefined {
  const wanted = caseSensitive ? text : text.toLowerCase();
  if (wanted.length > MAX_LENGTH) return undefined;
  let best: string | undefined;
  let bestDistance = MAX_DISTANCE + 1;
  for (const option of options) {
    const candidate = caseSensitive ? option : option.toLowerCase();
    if (candidate === wanted) return undefined;
    if (candidate.length > MAX_LENGTH || Math.abs(candidate.length - wanted.length) > 2 * MAX_DISTANCE)
      continue;
    const distance = levenshtein(wanted, candidate);
    if (distance >= bestDistance) continue;
    bestDistance = distance;
    best = candidate;
  }
  if (best === undefined || best === "") return undefined;
  if (!caseSensitive && text !== text.toLowerCase() && text === text.toUpperCase()) return best.toUpperCase();
  return best;
}

/** `message` with ` (did you mean X?)` when {@link suggest} has an X. */
export function withSuggestion(
  message: string,
  text: string,
  options: Iterable<string>,
  caseSensitive: boolean,
): string {
  const match = suggest(text, options, caseSensitive);
  return match === undefined ? message : `${message} (did you mean ${match}?)`;
}
