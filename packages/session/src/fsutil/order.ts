import { comparePaths } from "@kiln/sys";

/**
 * Order of paths on fsutil's wire: by bytes, but `/` comes before everything, so that what is below a
 * directory comes before its next sibling.
 */
export function compareWirePaths(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    if (x === 0x2f) return -1;
    if (y === 0x2f) return 1;
    if (x < 0xd800 && y < 0xd800) return x - y;
    return comparePaths(a.slice(i), b.slice(i)) < 0 ? -1 : 1;
  }
  return a.length - b.length;
}
