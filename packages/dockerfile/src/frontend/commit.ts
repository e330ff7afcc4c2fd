import { Problem } from "../base/problem.ts";

/** When a raw commit object was committed, in seconds since the epoch. Throws a problem for another object. */
export function commitTime(object: Uint8Array): bigint {
  const text = new TextDecoder().decode(object);
  const end = text.indexOf("\n\n");
  const head = end < 0 ? text : text.slice(0, end);
  const match = /(?:^|\n)committer [^\n]*> (-?[0-9]+) [+-][0-9]{4}(?:\n|$)/.exec(head);
  if (match === null) throw new Problem("invalid commit object: no committer");
  return BigInt(match[1]!);
}
