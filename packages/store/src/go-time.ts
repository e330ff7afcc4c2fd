/** A time in milliseconds since the epoch as Go's RFC3339Nano writes it in UTC: no zeros at the end. */
export function goTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/\.?0*Z$/, "Z");
}
