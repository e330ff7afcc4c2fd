/** The display for terminals: a header and one row per step, drawn over itself. */
import { type ProgressColors, readProgressColors } from "./colors.ts";
import {
  DISPLAY_LIMIT_MS,
  type Display,
  type DisplayOptions,
  type ProgressOutput,
  RefreshLimiter,
  type TerminalSize,
} from "./display.ts";
import { formatTransfer } from "./format-bytes.ts";
import { type Interval, mergeIntervals, totalSeconds } from "./interval.ts";
import { sanitizeName } from "./sanitize.ts";
import { type SolveStatus, secondsBetween, timeNsFromMs } from "./status.ts";
import { errorExcerpt, Trace, type TraceVertex, WINDOW_PADDING } from "./trace.ts";

const DEFAULT_LOG_LINES = 6;
const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const FAINT = "\x1b[2m";
const RESET = "\x1b[0m";
/** Rows that a log window takes besides its lines. */
const WINDOW_EXTRA_ROWS = 3;
/** Narrower than this a row isn't shown. */
const MIN_NAME_COLUMNS = 12;

interface Row {
  readonly intervals: readonly Interval[];
  readonly isCompleted: boolean;
  readonly name: string;
  readonly status: string;
  readonly color: keyof ProgressColors;
  readonly vertex?: TraceVertex;
  showWindow: boolean;
}

/** An output that is a terminal; its size may change at any time. */
export interface TerminalOutput extends ProgressOutput {
  size(): TerminalSize | undefined;
}

/** Makes a display for a terminal. */
export function createTtyDisplay(output: TerminalOutput, options: DisplayOptions): Display {
  return new TtyDisplay(output, options);
}

class TtyDisplay implements Display {
  readonly #output: TerminalOutput;
  readonly #options: DisplayOptions;
  readonly #colors: ProgressColors;
  readonly #limiter: RefreshLimiter;
  readonly #trace: Trace;
  readonly #logLines: number;
  #rowCount = 0;
  #isRepeated = false;

  constructor(output: TerminalOutput, options: DisplayOptions) {
    const env = options.env ?? (() => undefined);
    const lines = Number(env("BUILDKIT_TTY_LOG_LINES"));
    this.#logLines = Number.isInteger(lines) && lines > 0 ? lines : DEFAULT_LOG_LINES;
    this.#output = output;
    this.#options = options;
    this.#colors = readProgressColors(env).colors;
    this.#limiter = new RefreshLimiter(options.clock, options.limitMs ?? DISPLAY_LIMIT_MS);
    this.#trace = new Trace({ clock: options.clock, windowHeight: this.#logLines });
  }

  update(status: SolveStatus): void {
    this.#trace.update(status, this.#size().columns);
    if (this.#limiter.allow()) this.refresh();
  }

  refresh(): void {
    this.#draw(false);
  }

  done(): void {
    this.#draw(true);
    const excerpt = errorExcerpt(this.#trace, (vertex) => vertex.logs);
    if (excerpt !== "") this.#output.write(excerpt);
  }

  #size(): TerminalSize {
    const size = this.#output.size();
    return size && size.columns > 0 && size.rows > 0 ? size : { columns: 80, rows: 10 };
  }

  #draw(isLast: boolean): void {
    const { columns, rows: height } = this.#size();
    const rows = this.#chooseRows(height, isLast);
    const up = this.#rowCount + (this.#isRepeated ? 1 : 0);
    this.#isRepeated = true;
    let out = `${up > 0 ? `\x1b[${up}A` : ""}\x1b[0G${HIDE_CURSOR}${this.#header(columns, isLast)}\n`;
    let drawn = 0;
    for (const row of rows) {
      const line = this.#rowText(row, columns);
      if (line === undefined) continue;
      out += line;
      drawn++;
      if (!row.showWindow || !row.vertex?.window) continue;
      row.vertex.window.resize(this.#windowHeight(height), columns - WINDOW_PADDING);
      for (const text of row.vertex.window.visibleLines()) {
        out += `${FAINT} => => # ${text}\n${RESET}`;
        drawn++;
      }
      row.vertex.windowShown++;
    }
    const extra = this.#rowCount - drawn;
    if (extra > 0) out += `${`${" ".repeat(columns)}\n`.repeat(extra)}\x1b[${extra}A\x1b[0G`;
    this.#rowCount = drawn;
    this.#output.write(out + SHOW_CURSOR);
  }

  #header(columns: number, isLast: boolean): string {
    let total = this.#trace.byDigest.size;
    let completed = 0;
    for (const vertex of this.#trace.byDigest.values()) {
      if (vertex.hidden) total--;
      else if (vertex.isCompleted) completed++;
    }
    const now = timeNsFromMs(this.#options.clock.now());
    const start = this.#trace.startTime === undefined ? now : this.#trace.startTime + this.#trace.clockSkew;
    const state = completed > 0 && completed === total && isLast ? "FINISHED" : "";
    const phase = this.#options.phase ?? "Building";
    const text = `[+] ${phase} ${secondsBetween(start, now).toFixed(1)}s (${completed}/${total}) ${state}`;
    const label = this.#options.label ?? "";
    return alignRight(text, label, label === "" ? columns : columns - 1).slice(0, columns);
  }

  #rowText(row: Row, columns: number): string | undefined {
    if (row.intervals.length === 0) return undefined;
    const now = timeNsFromMs(this.#options.clock.now());
    let seconds = totalSeconds(row.intervals, now);
    if (seconds < 0.05) seconds = 0;
    const timer = ` ${seconds.toFixed(1)}s\n`;
    let left = columns - " => ".length - timer.length - 1;
    let status = "";
    if (row.status !== "" && left + row.status.length > 20) {
      status = ` ${row.status}`;
      left -= row.status.length + 1;
    }
    if (left < MIN_NAME_COLUMNS) return undefined;
    const text = alignRight(` => ${row.name.slice(0, left)}${status}`, timer, columns);
    const color = row.isCompleted ? this.#colors[row.color] : undefined;
    return color === undefined ? text : `${color}${text}${RESET}`;
  }

  #windowHeight(height: number): number {
    return Math.max(DEFAULT_LOG_LINES, Math.min(this.#logLines, height - DEFAULT_LOG_LINES - 1));
  }

  #chooseRows(height: number, isLast: boolean): Row[] {
    const rows = this.#rows();
    const running = rows.filter((row) => !row.isCompleted);
    const busy = (row: Row): number =>
      (row.vertex?.window?.written ?? 0) + (row.vertex?.windowShown ?? 0) * 50;
    const candidates = running
      .filter((row) => (row.vertex?.window?.written ?? 0) > 0)
      .sort((a, b) => busy(b) - busy(a));
    const windowRows = this.#windowHeight(height) + WINDOW_EXTRA_ROWS;
    let free = height - 2 - running.length;
    let hidden = 0;
    for (const row of candidates) {
      if (free <= windowRows) break;
      row.showWindow = true;
      hidden += row.vertex?.window?.usedHeight ?? 0;
      free -= windowRows;
    }
    return isLast ? rows : fitRows(rows, height - 2 - hidden);
  }

  #rows(): Row[] {
    const skew = this.#trace.clockSkew;
    const local = (interval: Interval): Interval =>
      interval.stop === undefined
        ? { start: interval.start + skew }
        : { start: interval.start + skew, stop: interval.stop + skew };
    const rows: Row[] = [];
    for (const vertex of this.#trace.vertexes) {
      const intervals = [...vertex.intervals.values()].map(local);
      rows.push({
        intervals: mergeIntervals(intervals),
        isCompleted: intervals.every((interval) => interval.stop !== undefined),
        name: rowName(vertex),
        status: "",
        color: vertex.isCanceled ? "cancel" : vertex.error !== "" ? "error" : "run",
        vertex,
        showWindow: false,
      });
      rows.push(...statusRows(vertex, local), ...warningRows(vertex, local));
    }
    return rows;
  }
}

function rowName(vertex: TraceVertex): string {
  let name = vertex.name;
  if (vertex.isCanceled) name = `CANCELED ${name}`;
  else if (vertex.error !== "") name = `ERROR ${name}`;
  return vertex.cached ? `CACHED ${name}` : name;
}

function statusRows(vertex: TraceVertex, local: (interval: Interval) => Interval): Row[] {
  return vertex.statuses.flatMap((id) => {
    const status = vertex.statusById.get(id);
    if (status?.started === undefined) return [];
    const { started: start, completed: stop } = status;
    return {
      intervals: [local(stop === undefined ? { start } : { start, stop })],
      isCompleted: stop !== undefined,
      name: `=> ${sanitizeName(id)}`,
      status: formatTransfer(status.current, status.total),
      color: "run" as const,
      showWindow: false,
    };
  });
}

function warningRows(vertex: TraceVertex, local: (interval: Interval) => Interval): Row[] {
  const interval = vertex.merged.at(-1);
  return vertex.warnings.map((warning) => ({
    intervals: interval ? [local(interval)] : [],
    isCompleted: false,
    name: `WARN: ${sanitizeName(new TextDecoder().decode(warning.short))}`,
    status: "",
    color: "cancel" as const,
    showWindow: false,
  }));
}

/** The last `limit` rows; running ones above them take the place of completed ones. */
function fitRows(rows: readonly Row[], limit: number): Row[] {
  if (limit < 0) return [];
  if (rows.length <= limit) return [...rows];
  const cut = rows.length - limit;
  const unseen = rows.slice(0, cut).filter((row) => !row.isCompleted);
  if (unseen.length === 0) return rows.slice(cut);
  let toDrop = unseen.length;
  const kept = rows.slice(cut).filter((row) => {
    const stays = !row.isCompleted || toDrop <= 0;
    toDrop--;
    return stays;
  });
  const freed = limit - kept.length;
  return [...(freed > 0 ? unseen.slice(-freed) : []), ...kept];
}

function alignRight(left: string, right: string, columns: number): string {
  return `${left.padEnd(Math.max(0, columns - right.length - 1))} ${right}`;
}
