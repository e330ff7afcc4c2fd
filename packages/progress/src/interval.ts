import { secondsBetween, type TimeNs } from "./status.ts";

/** A stretch of time in which a vertex ran; without `stop` it still does. */
export interface Interval {
  readonly start: TimeNs;
  readonly stop?: TimeNs;
}

/** Seconds that an interval has lasted. */
export function intervalSeconds(interval: Interval, now: TimeNs): number {
  return secondsBetween(interval.start, interval.stop ?? now);
}

/** Seconds that a vertex has been running, overlapping intervals counted once. */
export function totalSeconds(intervals: readonly Interval[], now: TimeNs): number {
  return intervals.reduce((sum, interval) => sum + intervalSeconds(interval, now), 0);
}

/** The intervals in order, those that overlap joined. One that is open takes in everything after it. */
export function mergeIntervals(intervals: Iterable<Interval>): Interval[] {
  const sorted = [...intervals].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const merged: Interval[] = [];
  for (const next of sorted) {
    const last = merged.at(-1);
    if (last === undefined || (last.stop !== undefined && last.stop < next.start)) {
      merged.push(next);
    } else if (last.stop === undefined) {
      return merged;
    } else if (next.stop === undefined) {
      merged[merged.length - 1] = { start: last.start };
    } else if (next.stop > last.stop) {
      merged[merged.length - 1] = { start: last.start, stop: next.stop };
    }
  }
  return merged;
}
