const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"] as const;

/** Decimal size with two digits after the point, whole bytes without: `57B`, `1.23kB`. */
export function formatBytes(bytes: bigint): string {
  const magnitude = bytes < 0n ? -bytes : bytes;
  let unit = 0;
  let base = 1n;
  while (unit < UNITS.length - 1 && magnitude >= base * 1000n) {
    base *= 1000n;
    unit++;
  }
  if (unit === 0) return `${bytes}B`;
  return `${(Number(bytes) / Number(base)).toFixed(2)}${UNITS[unit]}`;
}

/** `current / total`, only `current` where the total is unknown, empty where nothing is known. */
export function formatTransfer(current: bigint, total: bigint): string {
  if (total !== 0n) return `${formatBytes(current)} / ${formatBytes(total)}`;
  return current !== 0n ? formatBytes(current) : "";
}
