import { readFileSync } from "node:fs";
import { type CgroupSample, sampleCgroup } from "./cgroup-sample.ts";

const INTERVAL_MS = 2_000;
/** Samples are taken half as often after each so many. */
const SAMPLES_PER_INTERVAL = 10;
/** Kernel ticks per second as programs see them (`USER_HZ`). */
const TICKS = 100;
const CPU_FIELDS = [
  "user",
  "nice",
  "system",
  "idle",
  "iowait",
  "irq",
  "softirq",
  "steal",
  "guest",
  "guestNice",
] as const;

/** What a container used, and how busy the machine's processors were meanwhile (seconds). */
export interface ResourceUsage {
  readonly samples: readonly CgroupSample[];
  readonly sysCPUStat?: Readonly<Record<string, number>> | undefined;
}

/** What a {@link ResourceMonitor} reads; tests give their own. */
export interface ResourceSource {
  sample(): CgroupSample | undefined;
  /** The text of `/proc/stat`. */
  stat(): string;
}

/** Looks at a container's cgroup every now and then, from its start on. */
export class ResourceMonitor implements Disposable {
  readonly #source: ResourceSource;
  readonly #samples: CgroupSample[] = [];
  readonly #started: readonly number[];
  #intervalMs = INTERVAL_MS;
  #timer: NodeJS.Timeout;

  constructor(source: ResourceSource) {
    this.#source = source;
    this.#started = ticksOf(source.stat());
    this.#timer = this.#next();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  /** Ends the recording. `last` is how it was when the container ended; undefined when nothing is known. */
  end(last: CgroupSample | undefined): ResourceUsage | undefined {
    this[Symbol.dispose]();
    const samples = last === undefined ? this.#samples : [...this.#samples, last];
    if (samples.length === 0) return undefined;
    const now = ticksOf(this.#source.stat());
    const spent = CPU_FIELDS.map((name, at): [string, number] => [
      name,
      ((now[at] ?? 0) - (this.#started[at] ?? 0)) / TICKS,
    ]);
    return { samples, ...(now.length === 0 ? {} : { sysCPUStat: Object.fromEntries(spent) }) };
  }

  #next(): NodeJS.Timeout {
    const timer = setTimeout(() => {
      const sample = this.#source.sample();
      if (sample !== undefined) this.#samples.push(sample);
      if (this.#samples.length % SAMPLES_PER_INTERVAL === 0 && sample !== undefined) this.#intervalMs *= 2;
      this.#timer = this.#next();
    }, this.#intervalMs);
    timer.unref();
    return timer;
  }
}

/** Monitors the cgroup at a path. */
export function monitorCgroup(cgroupsPath: string): ResourceMonitor {
  return new ResourceMonitor({ sample: () => sampleCgroup(cgroupsPath), stat: readStat });
}

function readStat(): string {
  try {
    return readFileSync("/proc/stat", "utf8");
  } catch {
    return "";
  }
}

function ticksOf(stat: string): readonly number[] {
  return (/^cpu\s+(.*)$/m.exec(stat)?.[1] ?? "")
    .split(/\s+/)
    .filter((text) => text !== "")
    .map(Number);
}
