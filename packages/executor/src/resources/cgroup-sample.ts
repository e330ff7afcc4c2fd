import { readFileSync } from "node:fs";
import { join } from "node:path";

/** What a cgroup had used at one moment, in the words and units of BuildKit's provenance. */
export interface CgroupSample {
  /** RFC 3339. */
  readonly timestamp: string;
  readonly cpuStat?: Stat | undefined;
  readonly memoryStat?: Stat | undefined;
  readonly ioStat?: Stat | undefined;
  readonly pidsStat?: Stat | undefined;
}

/** Figures by name; those that the kernel doesn't tell are missing. */
export type Stat = Readonly<Record<string, number | Pressure | undefined>>;

/** How long processes waited for something, `some` of them or all (`full`). */
export type Pressure = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** The text of a file below the cgroup file systems; undefined for one that isn't there or can't be read now. */
export type ReadCgroupFile = (path: string) => string | undefined;

const CGROUP_ROOT = "/sys/fs/cgroup";
/** Kernel ticks per second as programs see them (`USER_HZ`), in nanoseconds. */
const TICK_NS = 10_000_000;
const MICROSECOND_NS = 1000;

const CPU = {
  usageNanos: ["usage_usec", MICROSECOND_NS],
  userNanos: ["user_usec", MICROSECOND_NS],
  systemNanos: ["system_usec", MICROSECOND_NS],
  nrPeriods: ["nr_periods", 1],
  nrThrottled: ["nr_throttled", 1],
  throttledNanos: ["throttled_usec", MICROSECOND_NS],
} as const;

const MEMORY = {
  anon: ["anon", 1],
  file: ["file", 1],
  kernelStack: ["kernel_stack", 1],
  pageTables: ["pagetables", 1],
  sock: ["sock", 1],
  shmem: ["shmem", 1],
  fileMapped: ["file_mapped", 1],
  fileDirty: ["file_dirty", 1],
  fileWriteback: ["file_writeback", 1],
  slab: ["slab", 1],
  pgscan: ["pgscan", 1],
  pgsteal: ["pgsteal", 1],
  pgfault: ["pgfault", 1],
  pgmajfault: ["pgmajfault", 1],
} as const;

const MEMORY_EVENTS = {
  lowEvents: ["low", 1],
  highEvents: ["high", 1],
  maxEvents: ["max", 1],
  oomEvents: ["oom", 1],
  oomKillEvents: ["oom_kill", 1],
} as const;

const MEMORY_V1 = {
  anon: ["rss", 1],
  file: ["cache", 1],
  shmem: ["shmem", 1],
  fileMapped: ["mapped_file", 1],
  fileDirty: ["dirty", 1],
  fileWriteback: ["writeback", 1],
  pgfault: ["pgfault", 1],
  pgmajfault: ["pgmajfault", 1],
} as const;

const IO = {
  rbytes: "readBytes",
  wbytes: "writeBytes",
  dbytes: "discardBytes",
  rios: "readIOs",
  wios: "writeIOs",
  dios: "discardIOs",
} as const;

/**
 * Reads what a cgroup has used: from the one tree of version 2, or where that isn't there or has no controllers
 * from the trees of version 1. Undefined when nothing is known of it.
 */
export function sampleCgroup(
  cgroupsPath: string,
  how: { readonly read?: ReadCgroupFile; readonly nowMs?: number } = {},
): CgroupSample | undefined {
  const read = how.read ?? readSystemFile;
  const file = (tree: string, name: string): string | undefined =>
    read(join(CGROUP_ROOT, tree, cgroupsPath, name));
  const unified = (name: string): string | undefined => file("", name) ?? file("unified", name);
  const stats = {
    cpuStat: cpuStat(unified) ?? cpuStatV1(file),
    memoryStat: memoryStat(unified) ?? memoryStatV1(file),
    ioStat: ioStat(unified) ?? ioStatV1(file),
    pidsStat: single("current", unified("pids.current") ?? file("pids", "pids.current")),
  };
  if (Object.values(stats).every((stat) => stat === undefined)) return undefined;
  return { timestamp: new Date(how.nowMs ?? Date.now()).toISOString(), ...stats };
}

type ReadName = (name: string) => string | undefined;
type ReadTree = (tree: string, name: string) => string | undefined;
type Names = Readonly<Record<string, readonly [name: string, factor: number]>>;

function cpuStat(read: ReadName): Stat | undefined {
  const text = read("cpu.stat");
  if (text === undefined) return undefined;
  return { ...fields(text, CPU), pressure: pressure(read("cpu.pressure")) };
}

function memoryStat(read: ReadName): Stat | undefined {
  const text = read("memory.stat");
  if (text === undefined) return undefined;
  const events = Object.entries(fields(read("memory.events") ?? "", MEMORY_EVENTS));
  return {
    swapBytes: numberOf(read("memory.swap.current")),
    ...fields(text, MEMORY),
    peak: numberOf(read("memory.peak")),
    ...Object.fromEntries(events.filter(([, value]) => value !== 0)),
    pressure: pressure(read("memory.pressure")),
  };
}

function ioStat(read: ReadName): Stat | undefined {
  const text = read("io.stat");
  if (text === undefined) return undefined;
  const sums = new Map<string, number>();
  for (const [, key = "", value] of text.matchAll(/\b([rwd](?:bytes|ios))=(\d+)/g)) {
    sums.set(key, (sums.get(key) ?? 0) + Number(value));
  }
  const out: Record<string, number | undefined> = {};
  for (const [key, name] of Object.entries(IO)) out[name] = sums.get(key);
  return { ...out, pressure: pressure(read("io.pressure")) };
}

function cpuStatV1(read: ReadTree): Stat | undefined {
  const usage = numberOf(read("cpuacct", "cpuacct.usage"));
  if (usage === undefined) return undefined;
  const ticks = { userNanos: ["user", TICK_NS], systemNanos: ["system", TICK_NS] } as const;
  const throttling = {
    nrPeriods: ["nr_periods", 1],
    nrThrottled: ["nr_throttled", 1],
    throttledNanos: ["throttled_time", 1],
  } as const;
  return {
    usageNanos: usage,
    ...fields(read("cpuacct", "cpuacct.stat") ?? "", ticks),
    ...fields(read("cpu", "cpu.stat") ?? "", throttling),
  };
}

function memoryStatV1(read: ReadTree): Stat | undefined {
  const text = read("memory", "memory.stat");
  if (text === undefined) return undefined;
  return { ...fields(text, MEMORY_V1), peak: numberOf(read("memory", "memory.max_usage_in_bytes")) };
}

function ioStatV1(read: ReadTree): Stat | undefined {
  const bytes = read("blkio", "blkio.throttle.io_service_bytes");
  if (bytes === undefined) return undefined;
  const sum = (text: string, what: string): number => {
    let total = 0;
    for (const [, value] of text.matchAll(new RegExp(`^\\d+:\\d+ ${what} (\\d+)$`, "gm")))
      total += Number(value);
    return total;
  };
  const calls = read("blkio", "blkio.throttle.io_serviced") ?? "";
  return {
    readBytes: sum(bytes, "Read"),
    writeBytes: sum(bytes, "Write"),
    readIOs: sum(calls, "Read"),
    writeIOs: sum(calls, "Write"),
  };
}

function single(name: string, text: string | undefined): Stat | undefined {
  const value = numberOf(text);
  return value === undefined ? undefined : { [name]: value };
}

function fields(text: string, names: Names): Record<string, number | undefined> {
  const found = new Map<string, number>();
  for (const [, key = "", value] of text.matchAll(/^(\S+) (\d+)$/gm)) found.set(key, Number(value));
  return Object.fromEntries(
    Object.entries(names).map(([name, [key, factor]]) => {
      const value = found.get(key);
      return [name, value === undefined ? undefined : value * factor];
    }),
  );
}

/** Undefined where the kernel doesn't measure it. */
function pressure(text: string | undefined): Pressure | undefined {
  if (text === undefined) return undefined;
  const out: Record<string, Readonly<Record<string, number>>> = {};
  for (const match of text.matchAll(/^(some|full) avg10=(\S+) avg60=(\S+) avg300=(\S+) total=(\d+)$/gm)) {
    const [, kind = "", avg10, avg60, avg300, total] = match;
    out[kind] = { avg10: Number(avg10), avg60: Number(avg60), avg300: Number(avg300), total: Number(total) };
  }
  return out;
}

function numberOf(text: string | undefined): number | undefined {
  const match = /^\d+$/.exec(text?.trim() ?? "");
  return match === null ? undefined : Number(match[0]);
}

function readSystemFile(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // gone with its container, or not measured by this kernel
  }
}
