import type { Clock } from "@kiln/base";
import { type Interval, mergeIntervals } from "./interval.ts";
import { LogWindow } from "./log-window.ts";
import { LogSanitizer, sanitizeName, sanitizeText } from "./sanitize.ts";
import {
  type ProgressGroup,
  type SolveStatus,
  secondsBetween,
  type TimeNs,
  timeNsFromMs,
  type VertexLog,
  type VertexStatusUpdate,
  type VertexUpdate,
  type VertexWarning,
} from "./status.ts";

/** Columns of a terminal row that a log window leaves free. */
export const WINDOW_PADDING = 10;

/** The suffix that tells a cancelled vertex from a failed one. */
const CANCELED_SUFFIX = "context canceled";

/** Everything known about one vertex, or about the members of one progress group. Names are sanitised. */
export class TraceVertex {
  readonly digest: string;
  name = "";
  started: TimeNs | undefined;
  completed: TimeNs | undefined;
  cached = false;
  error = "";
  /** Those that have started, in order. */
  readonly statuses: string[] = [];
  readonly statusById = new Map<string, VertexStatusUpdate>();
  /** Ids that changed since the plain display last printed them. */
  readonly changedStatuses = new Set<string>();
  readonly warnings: VertexWarning[] = [];
  readonly intervals = new Map<TimeNs, Interval>();
  merged: readonly Interval[] = [];
  /** A progress group none of whose strong members has started. */
  hidden = false;
  /** Lines with their time in front, without line ends; the last may be unfinished. */
  logs: string[] = [];
  logsPartial = false;
  readonly window: LogWindow | undefined;
  /** Times the tty display showed the window. */
  windowShown = 0;
  /** Updates since the plain display turned to another vertex, and when the first of them came. */
  updateCount = 0;
  blockedSinceMs: number | undefined;
  readonly #decoders = new Map<number, { decoder: TextDecoder; sanitizer: LogSanitizer }>();

  constructor(digest: string, window?: LogWindow) {
    this.digest = digest;
    this.window = window;
  }

  get isStarted(): boolean {
    return this.merged.length > 0;
  }

  get isCompleted(): boolean {
    return this.merged.at(-1)?.stop !== undefined;
  }

  get isCanceled(): boolean {
    return this.error.endsWith(CANCELED_SUFFIX);
  }

  get hasFailed(): boolean {
    return this.error !== "" && !this.isCanceled;
  }

  touch(nowMs: number): void {
    if (this.updateCount === 0) this.blockedSinceMs = nowMs;
    this.updateCount++;
  }

  setInterval(interval: Interval): boolean {
    const before = this.intervals.get(interval.start);
    this.intervals.set(interval.start, interval);
    this.merged = mergeIntervals(this.intervals.values());
    return before === undefined || before.stop !== interval.stop;
  }

  /** Decoded and cleaned text of a piece of log. */
  clean(log: VertexLog): string {
    let state = this.#decoders.get(log.stream);
    if (state === undefined) {
      state = { decoder: new TextDecoder(), sanitizer: new LogSanitizer() };
      this.#decoders.set(log.stream, state);
    }
    return state.sanitizer.push(state.decoder.decode(log.data, { stream: true }));
  }

  appendLog(text: string, timestamp: TimeNs): void {
    const complete = text.endsWith("\n");
    const lines = (complete ? text.slice(0, -1) : text).split("\n");
    lines.forEach((line, i) => {
      if (i === 0 && this.logsPartial && this.logs.length > 0) {
        this.logs[this.logs.length - 1] += line;
      } else {
        this.logs.push(`${this.#logTime(timestamp)} ${line}`);
      }
    });
    this.logsPartial = !complete;
  }

  #logTime(timestamp: TimeNs): string {
    const start = this.merged.at(-1)?.start;
    const seconds = start === undefined ? 0 : secondsBetween(start, timestamp);
    return seconds.toFixed(seconds < 10 ? 3 : seconds < 100 ? 2 : 1);
  }
}

interface Group {
  readonly vertex: TraceVertex;
  readonly members: Map<string, { update: VertexUpdate; weak: boolean }>;
}

/** What a display wants of a {@link Trace}. */
export interface TraceOptions {
  readonly clock: Clock;
  /** Height of the log windows; without it none are kept. */
  readonly windowHeight?: number;
}

/**
 * The state of a build, put together from its status messages. Messages may name vertices twice or out of
 * order; what refers to an unknown vertex is dropped.
 */
export class Trace {
  startTime: TimeNs | undefined;
  /** Nanoseconds by which the daemon's clock is behind ours. */
  clockSkew: TimeNs = 0n;
  /** Visible vertices in order of their start. */
  readonly vertexes: TraceVertex[] = [];
  /** Members of a group are listed with the group's vertex. */
  readonly byDigest = new Map<string, TraceVertex>();
  /** Vertices that changed since the plain display last printed them. */
  readonly changed = new Set<string>();
  readonly #groups = new Map<string, Group>();
  readonly #clock: Clock;
  readonly #windowHeight: number | undefined;

  constructor(options: TraceOptions) {
    this.#clock = options.clock;
    this.#windowHeight = options.windowHeight;
  }

  update(status: SolveStatus, columns: number): void {
    const touchedGroups = new Set<Group>();
    for (const update of status.vertexes) {
      this.startTime ??= update.started;
      if (update.progressGroup) touchedGroups.add(this.#joinGroup(update, update.progressGroup, columns));
      else this.#updateVertex(update, columns);
    }
    for (const group of touchedGroups) this.#refreshGroup(group);
    for (const update of status.statuses) this.#updateStatus(update);
    for (const warning of status.warnings) {
      const vertex = this.byDigest.get(warning.vertex);
      if (vertex === undefined) continue;
      vertex.warnings.push(warning);
      vertex.touch(this.#clock.now());
    }
    for (const log of status.logs) this.#addLog(log, columns);
  }

  #createVertex(digest: string, columns: number): TraceVertex {
    const window =
      this.#windowHeight === undefined
        ? undefined
        : new LogWindow(this.#windowHeight, columns - WINDOW_PADDING);
    const vertex = new TraceVertex(digest, window);
    this.byDigest.set(digest, vertex);
    return vertex;
  }

  #updateVertex(update: VertexUpdate, columns: number): void {
    const known = this.byDigest.get(update.digest);
    const vertex = known ?? this.#createVertex(update.digest, columns);
    const wasStarted = vertex.isStarted;
    if (update.started !== undefined && this.#differs(vertex, update)) {
      vertex.touch(this.#clock.now());
      this.changed.add(update.digest);
    }
    if (update.started !== undefined && !wasStarted) {
      this.#noteStart(update.started);
      this.vertexes.push(vertex);
    }
    if (!wasStarted || update.started !== undefined) {
      vertex.name = sanitizeName(update.name);
      vertex.started = update.started;
      vertex.completed = update.completed;
      vertex.cached = update.cached;
      vertex.error = sanitizeText(update.error);
    }
    if (update.started !== undefined) vertex.setInterval(intervalOf(update.started, update.completed));
  }

  #differs(vertex: TraceVertex, update: VertexUpdate): boolean {
    return (
      vertex.started !== update.started ||
      vertex.name !== sanitizeName(update.name) ||
      (vertex.completed !== update.completed && update.completed !== undefined) ||
      vertex.cached !== update.cached ||
      vertex.error !== sanitizeText(update.error)
    );
  }

  #noteStart(started: TimeNs): void {
    if (this.clockSkew === 0n) this.clockSkew = timeNsFromMs(this.#clock.now()) - started;
  }

  #joinGroup(update: VertexUpdate, progressGroup: ProgressGroup, columns: number): Group {
    let group = this.#groups.get(progressGroup.id);
    if (group === undefined) {
      const vertex = this.#createVertex(progressGroup.id, columns);
      vertex.name = sanitizeName(progressGroup.name);
      vertex.hidden = true;
      group = { vertex, members: new Map() };
      this.#groups.set(progressGroup.id, group);
    }
    group.members.set(update.digest, { update, weak: progressGroup.weak });
    this.byDigest.set(update.digest, group.vertex);
    return group;
  }

  #refreshGroup({ vertex, members }: Group): void {
    const before = { started: vertex.isStarted, cached: vertex.cached, error: vertex.error };
    const wasHidden = vertex.hidden;
    let changed = false;
    let cached = true;
    let error = "";
    for (const { update, weak } of members.values()) {
      if (update.started !== undefined) {
        changed = vertex.setInterval(intervalOf(update.started, update.completed)) || changed;
        if (!weak) vertex.hidden = false;
      }
      cached &&= update.cached;
      if (error === "") error = sanitizeText(update.error);
      if (error !== "") vertex.hidden = false;
    }
    vertex.cached = cached;
    vertex.error = error;
    const start = vertex.merged[0]?.start;
    if (!before.started && start !== undefined) this.#noteStart(start);
    if (vertex.hidden) return;
    if (wasHidden) this.vertexes.push(vertex);
    if (changed || wasHidden || before.cached !== cached || before.error !== error) {
      vertex.touch(this.#clock.now());
      this.changed.add(vertex.digest);
    }
  }

  #updateStatus(update: VertexStatusUpdate): void {
    const vertex = this.byDigest.get(update.vertex);
    if (vertex === undefined) return;
    const before = vertex.statusById.get(update.id);
    if (update.started !== undefined && before?.started === undefined) vertex.statuses.push(update.id);
    vertex.statusById.set(update.id, update);
    vertex.changedStatuses.add(update.id);
    this.changed.add(vertex.digest);
    vertex.touch(this.#clock.now());
  }

  #addLog(log: VertexLog, columns: number): void {
    const vertex = this.byDigest.get(log.vertex);
    if (vertex === undefined) return;
    const text = vertex.clean(log);
    if (text === "") return;
    if (vertex.window && this.#windowHeight !== undefined) {
      vertex.window.resize(this.#windowHeight, columns - WINDOW_PADDING);
      vertex.window.write(text);
    }
    vertex.appendLog(text, log.timestamp);
    this.changed.add(vertex.digest);
    vertex.touch(this.#clock.now());
  }
}

/** The tail that follows a failed build: the name and the log of each vertex that failed. */
export function errorExcerpt(trace: Trace, logsOf: (vertex: TraceVertex) => readonly string[]): string {
  let out = "";
  for (const vertex of trace.vertexes) {
    if (!vertex.hasFailed) continue;
    const logs = logsOf(vertex)
      .map((line) => `${line}\n`)
      .join("");
    out += `------\n > ${vertex.name}:\n${logs}------\n`;
  }
  return out;
}

function intervalOf(start: TimeNs, stop: TimeNs | undefined): Interval {
  return stop === undefined ? { start } : { start, stop };
}
