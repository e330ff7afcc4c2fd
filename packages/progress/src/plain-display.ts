/**
 * The plain display: every vertex gets a number, and its lines begin with it. One vertex at a time is printed;
 * which one follows a fairness rule, so that lines of parallel steps don't alternate wildly and none stays
 * unseen for long.
 *
 * 1. Completed vertices are printed first, the current one before the others.
 * 2. Then the current one goes on, until it completes, another waited longer than {@link MAX_WAIT_MS}, or its
 *    share of the updates no longer justifies its time ({@link ANTI_FLICKER_MS}).
 */

import {
  DISPLAY_LIMIT_MS,
  type Display,
  type DisplayOptions,
  type ProgressOutput,
  RefreshLimiter,
} from "./display.ts";
import { formatTransfer } from "./format-bytes.ts";
import { totalSeconds } from "./interval.ts";
import { sanitizeName, sanitizeText } from "./sanitize.ts";
import {
  type SolveStatus,
  secondsBetween,
  type TimeNs,
  timeNsFromMs,
  type VertexStatusUpdate,
} from "./status.ts";
import { errorExcerpt, Trace, type TraceVertex } from "./trace.ts";

const ANTI_FLICKER_MS = 5_000;
const MAX_WAIT_MS = 10_000;
const MIN_STATUS_SECONDS = 5;
const MIN_STATUS_SHARE = 0.05;
/** Log lines of a failed vertex that are repeated at the end. */
const ERROR_LOG_LINES = 10;
const TRUNCATED_NAME_LENGTH = 72;
/** Width that log windows would have; the plain display keeps none. */
const COLUMNS = 80;

interface Printed {
  index: number;
  /** Characters of an unfinished line that are out already. */
  logOffset: number;
  lastLogs: string[];
  warnings: number;
}

/** Makes a display for logs and pipes. */
export function createPlainDisplay(output: ProgressOutput, options: DisplayOptions): Display {
  return new PlainDisplay(output, options);
}

class PlainDisplay implements Display {
  readonly #trace: Trace;
  readonly #output: ProgressOutput;
  readonly #options: DisplayOptions;
  readonly #limiter: RefreshLimiter;
  readonly #printed = new Map<string, Printed>();
  readonly #lastStatus = new Map<string, { current: bigint; timestamp: TimeNs }>();
  #current = "";
  #isFirst = true;
  #nextIndex = 1;
  #text = "";

  constructor(output: ProgressOutput, options: DisplayOptions) {
    this.#trace = new Trace({ clock: options.clock });
    this.#output = output;
    this.#options = options;
    this.#limiter = new RefreshLimiter(options.clock, options.limitMs ?? DISPLAY_LIMIT_MS);
  }

  update(status: SolveStatus): void {
    this.#trace.update(status, COLUMNS);
    if (this.#limiter.allow()) this.refresh();
  }

  refresh(): void {
    this.#printChanges();
    this.#flush();
  }

  done(): void {
    this.refresh();
    this.#text += errorExcerpt(this.#trace, (vertex) => this.#stateOf(vertex).lastLogs);
    this.#flush();
  }

  #flush(): void {
    if (this.#text === "") return;
    this.#output.write(this.#text);
    this.#text = "";
  }

  #stateOf(vertex: TraceVertex): Printed {
    let state = this.#printed.get(vertex.digest);
    if (state === undefined) {
      state = { index: 0, logOffset: 0, lastLogs: [], warnings: 0 };
      this.#printed.set(vertex.digest, state);
    }
    return state;
  }

  #printChanges(): void {
    const completed: TraceVertex[] = [];
    const rest = new Map<string, TraceVertex>();
    for (const digest of this.#trace.changed) {
      const vertex = this.#trace.byDigest.get(digest);
      if (vertex === undefined || vertex.hidden) continue;
      if (vertex.isCompleted) completed.push(vertex);
      else rest.set(vertex.digest, vertex);
    }
    const current = this.#current;
    completed.sort((a, b) => compareTimes(a.merged.at(-1)?.stop, b.merged.at(-1)?.stop));
    const isCurrentDone = completed.some((vertex) => vertex.digest === current);
    for (const vertex of completed) if (vertex.digest === current) this.#printVertex(vertex);
    for (const vertex of completed) if (vertex.digest !== current) this.#printVertex(vertex);
    if (rest.size === 0) {
      this.#keepOneOpen(current);
      return;
    }
    const open = this.#trace.byDigest.get(current);
    if (open && rest.has(current)) this.#printVertex(open);
    if (open) rest.set(current, open);
    this.#switchVertex(rest, isCurrentDone ? "" : current);
  }

  /** With nothing new to print, some vertex that runs is the one being shown. */
  #keepOneOpen(current: string): void {
    const shown = current === "" ? undefined : this.#trace.byDigest.get(current);
    if (shown?.isStarted && !shown.isCompleted) return;
    for (const vertex of this.#trace.byDigest.values()) {
      if (vertex.isStarted && !vertex.isCompleted && !vertex.hidden) {
        this.#printVertex(vertex);
        return;
      }
    }
  }

  #switchVertex(candidates: ReadonlyMap<string, TraceVertex>, current: string): void {
    const now = this.#options.clock.now();
    let speedSum = 0;
    let busiest: { vertex: TraceVertex; speed: number } | undefined;
    let overdue: TraceVertex | undefined;
    let currentStat: { waitedMs: number; speed: number } | undefined;
    for (const vertex of candidates.values()) {
      if (vertex.blockedSinceMs === undefined) continue;
      const waitedMs = Math.max(now - vertex.blockedSinceMs, 0.001);
      const speed = vertex.updateCount / waitedMs;
      speedSum += speed;
      const isOverdue = waitedMs > MAX_WAIT_MS && vertex.digest !== current;
      if (isOverdue) overdue ??= vertex;
      if (isOverdue || busiest === undefined || busiest.speed < speed) busiest = { vertex, speed };
      if (vertex.digest === current) currentStat = { waitedMs, speed };
    }
    if (busiest === undefined) return;
    if (current === "") this.#printVertex(busiest.vertex);
    else if (overdue) this.#printVertex(overdue);
    else if (currentStat) {
      const share = speedSum === 0 ? 0 : currentStat.speed / speedSum;
      if ((1 / (1 - share)) * ANTI_FLICKER_MS < currentStat.waitedMs) this.#printVertex(busiest.vertex);
    }
  }

  #printVertex(vertex: TraceVertex): void {
    const state = this.#stateOf(vertex);
    if (state.index === 0) state.index = this.#nextIndex++;
    if (vertex.digest !== this.#current) this.#printHeader(vertex, state);
    const hasOpenStatus = this.#printStatuses(vertex, state);
    for (const warning of vertex.warnings.slice(state.warnings)) {
      this.#text += `#${state.index} WARN: ${sanitizeText(new TextDecoder().decode(warning.short))}\n`;
    }
    state.warnings = vertex.warnings.length;
    this.#printLogs(vertex, state);
    this.#current = vertex.digest;
    if (vertex.isCompleted && !hasOpenStatus) this.#printEnd(vertex, state);
    this.#trace.changed.delete(vertex.digest);
  }

  #printHeader(vertex: TraceVertex, state: Printed): void {
    const left = this.#trace.byDigest.get(this.#current);
    if (this.#current !== "" && left) {
      const leftState = this.#stateOf(left);
      if (left.logsPartial) this.#text += "\n";
      leftState.logOffset = 0;
      left.updateCount = 0;
      this.#text += `#${leftState.index} ...\n`;
    }
    if (!this.#isFirst) this.#text += "\n";
    else if (this.#options.description) this.#text += `#0 ${this.#options.description}\n\n`;
    this.#isFirst = false;
    const truncate = this.#options.env?.("PROGRESS_NO_TRUNC") === "0";
    const isLong = truncate && vertex.name.length > TRUNCATED_NAME_LENGTH;
    const name = isLong ? `${vertex.name.slice(0, TRUNCATED_NAME_LENGTH)}...` : vertex.name;
    this.#text += `#${state.index} ${name}\n`;
  }

  #printStatuses(vertex: TraceVertex, state: Printed): boolean {
    let hasOpenStatus = false;
    for (const id of vertex.statuses) {
      const status = vertex.statusById.get(id);
      if (status === undefined || !vertex.changedStatuses.has(id) || !this.#isWorthPrinting(status)) continue;
      this.#lastStatus.set(id, { current: status.current, timestamp: status.timestamp });
      if (status.completed === undefined) hasOpenStatus = true;
      this.#text += `#${state.index} ${statusLine(status)}\n`;
    }
    vertex.changedStatuses.clear();
    return hasOpenStatus;
  }

  #isWorthPrinting(status: VertexStatusUpdate): boolean {
    const last = this.#lastStatus.get(status.id);
    if (last === undefined || status.completed !== undefined) return true;
    const share = status.total > 0n ? Number(status.current - last.current) / Number(status.total) : 0;
    return (
      share >= MIN_STATUS_SHARE || secondsBetween(last.timestamp, status.timestamp) >= MIN_STATUS_SECONDS
    );
  }

  #printLogs(vertex: TraceVertex, state: Printed): void {
    vertex.logs.forEach((line, i) => {
      const isUnfinished = vertex.logsPartial && i === vertex.logs.length - 1;
      this.#text += i === 0 && state.logOffset > 0 ? line.slice(state.logOffset) : `#${state.index} ${line}`;
      if (isUnfinished) return;
      this.#text += "\n";
      state.lastLogs.push(line);
      if (state.lastLogs.length > ERROR_LOG_LINES) state.lastLogs.shift();
    });
    if (vertex.logs.length === 0) return;
    const last = vertex.logs.at(-1) as string;
    vertex.logs = vertex.logsPartial ? [last] : [];
    state.logOffset = vertex.logsPartial ? last.length : 0;
  }

  #printEnd(vertex: TraceVertex, state: Printed): void {
    this.#current = "";
    vertex.updateCount = 0;
    if (vertex.logsPartial) {
      this.#text += "\n";
      state.lastLogs.push(...vertex.logs);
      vertex.logs = [];
      vertex.logsPartial = false;
      state.logOffset = 0;
    }
    const now = timeNsFromMs(this.#options.clock.now());
    if (vertex.isCanceled) this.#text += `#${state.index} CANCELED\n`;
    else if (vertex.error !== "") this.#text += `#${state.index} ERROR: ${vertex.error}\n`;
    else if (vertex.cached) this.#text += `#${state.index} CACHED\n`;
    else this.#text += `#${state.index} DONE ${totalSeconds(vertex.merged, now).toFixed(1)}s\n`;
  }
}

function statusLine(status: VertexStatusUpdate): string {
  const transfer = formatTransfer(status.current, status.total);
  let line = sanitizeName(status.id);
  if (transfer !== "") line += ` ${transfer}`;
  if (status.started !== undefined) {
    const seconds = secondsBetween(status.started, status.completed ?? status.timestamp);
    if (seconds > 0.01) line += ` ${seconds.toFixed(1)}s`;
  }
  return status.completed === undefined ? line : `${line} done`;
}

function compareTimes(a: TimeNs | undefined, b: TimeNs | undefined): number {
  if (a === undefined || b === undefined || a === b) return 0;
  return a < b ? -1 : 1;
}
