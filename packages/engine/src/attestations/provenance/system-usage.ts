import { readFile } from "node:fs/promises";
import type { GoJson } from "../../cache-digest/go-json.ts";

/** Where the machine's figures come from; tests give their own. */
export interface UsageSource {
  /** The text of `/proc/<name>`; undefined where the kernel has none. */
  read(name: string): Promise<string | undefined>;
  now(): number;
}

const INTERVAL_MS = 2_000;
/** A recording takes a sample half as often after each so many. */
const SAMPLES_PER_INTERVAL = 20;
/** Kernel ticks per second as programs see them (`USER_HZ`). */
const TICKS = 100;
const PRESSURES = [
  ["cpuPressure", "pressure/cpu"],
  ["memoryPressure", "pressure/memory"],
  ["ioPressure", "pressure/io"],
] as const;

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

const MEMORY_FIELDS = [
  ["total", "MemTotal"],
  ["free", "MemFree"],
  ["available", "MemAvailable"],
  ["buffers", "Buffers"],
  ["cached", "Cached"],
  ["active", "Active"],
  ["inactive", "Inactive"],
  ["swap", "SwapTotal"],
  ["dirty", "Dirty"],
  ["writeback", "Writeback"],
  ["slab", "Slab"],
] as const;

/** How busy the machine was during one build; disposing of it ends the recording. */
export class SystemUsage implements Disposable {
  readonly #source: UsageSource;
  readonly #timer: NodeJS.Timeout;
  readonly #samples: GoJson[] = [];
  readonly #firstMs: number;
  #lastMs = 0;
  #intervalMs = INTERVAL_MS;
  #failed: unknown;

  constructor(source: UsageSource = PROC) {
    this.#source = source;
    this.#firstMs = source.now();
    this.#timer = setInterval(() => void this.#tick(), INTERVAL_MS);
    this.#timer.unref();
  }

  /** What was recorded so far and how it is now. @throws what the last reading threw. */
  async samples(): Promise<readonly GoJson[]> {
    if (this.#failed !== undefined) throw this.#failed;
    return [...this.#samples, await sampleSystem(this.#source)];
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #tick(): Promise<void> {
    const now = this.#source.now();
    // timers are a little early at times
    if (now - this.#lastMs < this.#intervalMs * 0.9) return;
    this.#lastMs = now;
    try {
      this.#samples.push(await sampleSystem(this.#source));
      this.#failed = undefined;
    } catch (error) {
      this.#failed = error;
    }
    if (now - this.#firstMs >= this.#intervalMs * SAMPLES_PER_INTERVAL) this.#intervalMs *= 2;
  }
}

const PROC: UsageSource = {
  read: async (name) => {
    try {
      return await readFile(`/proc/${name}`, "utf8");
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ENOENT" || code === "EOPNOTSUPP" || code === "ENOTSUP") return undefined;
      throw error;
    }
  },
  now: () => Date.now(),
};

/** One sample in the form that provenance has it. */
export async function sampleSystem(source: UsageSource = PROC): Promise<GoJson> {
  const timestamp = new Date(source.now()).toISOString();
  const stat = (await source.read("stat")) ?? "";
  const memory = (await source.read("meminfo")) ?? "";
  const pressures: Record<string, GoJson> = {};
  for (const [key, file] of PRESSURES) {
    const text = await source.read(file);
    if (text !== undefined) pressures[key] = pressure(text);
  }
  return { timestamp, ...statFields(stat), memoryStat: memoryFields(memory), ...pressures };
}

function statFields(text: string): Record<string, GoJson> {
  const line = (name: string): number[] =>
    (new RegExp(`^${name}\\s+(.*)$`, "m").exec(text)?.[1] ?? "").split(/\s+/).map(Number);
  const ticks = line("cpu");
  return {
    cpuStat: Object.fromEntries(CPU_FIELDS.map((name, at) => [name, (ticks[at] ?? 0) / TICKS])),
    procStat: {
      contextSwitches: line("ctxt")[0] ?? 0,
      processCreated: line("processes")[0] ?? 0,
      processesRunning: line("procs_running")[0] ?? 0,
    },
  };
}

/** In KiB, as the kernel tells it. */
function memoryFields(text: string): GoJson {
  return Object.fromEntries(
    MEMORY_FIELDS.map(([name, field]) => {
      const found = new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(text)?.[1];
      return [name, found === undefined ? null : Number(found)];
    }),
  );
}

function pressure(text: string): GoJson {
  const out: Record<string, GoJson> = {};
  for (const match of text.matchAll(/^(some|full) avg10=(\S+) avg60=(\S+) avg300=(\S+) total=(\d+)$/gm)) {
    const [, kind = "", avg10, avg60, avg300, total] = match;
    out[kind] = { avg10: Number(avg10), avg60: Number(avg60), avg300: Number(avg300), total: Number(total) };
  }
  return out;
}
