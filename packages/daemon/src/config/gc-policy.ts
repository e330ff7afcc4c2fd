import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { BuildError } from "@kiln/base";
import { parseRamBytes } from "@kiln/formats";
import type { PruneOptions } from "@kiln/store";
import { durationOf, lookUp } from "./parse-options.ts";

const GB = 1e9;
const DAY_MS = 24 * 3600 * 1000;
/** What a percentage of a disk of unknown size means. */
const UNKNOWN_DISK_BYTES = 2 * GB;

/**
 * The rules of garbage collection: those of the file, or BuildKit's defaults from the size of the disk
 * (buildkit.md §1.4).
 *
 * `keep` is the deprecated `Reserved[,Free[,Maximum]]` in megabytes.
 */
export function gcPolicy(file: Record<string, unknown>, keep: string, root: string): PruneOptions[] {
  const disk = diskBytes(root);
  const worker = lookUp(file, ["worker", "oci"]);
  const given = lookUp(worker, ["gcpolicy"]);
  if (Array.isArray(given) && given.length > 0) return given.map((rule) => ruleOf(rule, disk));
  const [reservedMb, freeMb, maxMb] = keepStorage(keep);
  const space = (key: string): number | undefined => {
    const value = lookUp(worker, [key]);
    return value === undefined ? undefined : diskSpaceOf(value, disk);
  };
  const caps = {
    reservedSpace: reservedMb ?? space("reservedSpace") ?? Math.min(percent(10, disk), 10 * GB),
    minFreeSpace: freeMb ?? space("minFreeSpace") ?? percent(20, disk),
    maxUsedSpace: maxMb ?? space("maxUsedSpace") ?? Math.min(percent(80, disk), 100 * GB),
  };
  return [
    {
      filters: ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"],
      keepDurationMs: 2 * DAY_MS,
      maxUsedSpace: 512e6,
    },
    { keepDurationMs: 60 * DAY_MS, ...caps },
    caps,
    { all: true, ...caps },
  ];
}

function ruleOf(rule: unknown, disk: number | undefined): PruneOptions {
  const get = (key: string): unknown => lookUp(rule, [key]);
  const space = (key: string): number => {
    const value = get(key);
    return value === undefined ? 0 : diskSpaceOf(value, disk);
  };
  const filters = get("filters");
  return {
    all: get("all") === true,
    ...(Array.isArray(filters) ? { filters: filters.map(String) } : {}),
    keepDurationMs: durationOf(get("keepDuration"), 0),
    reservedSpace: space("reservedSpace") || space("keepBytes"),
    maxUsedSpace: space("maxUsedSpace"),
    minFreeSpace: space("minFreeSpace"),
  };
}

function keepStorage(text: string): (number | undefined)[] {
  if (text === "") return [];
  return text.split(",").map((part) => {
    if (!/^\d{1,12}$/.test(part.trim())) {
      throw new BuildError("invalid_argument", `invalid value ${JSON.stringify(text)} for gckeepstorage`);
    }
    return Number(part) * 1e6;
  });
}

/** Bytes, a docker size (`512MB`), or a share of the disk (`10%`). */
function diskSpaceOf(value: unknown, disk: number | undefined): number {
  if (typeof value === "number" || typeof value === "bigint") return Number(value);
  const text = String(value);
  const share = /^(\d{1,3}(?:\.\d+)?)%$/.exec(text);
  if (share !== null) return percent(Number(share[1]), disk);
  return Number(parseRamBytes(text));
}

function percent(share: number, disk: number | undefined): number {
  if (disk === undefined) return UNKNOWN_DISK_BYTES;
  const bytes = Math.floor((disk * share) / 100);
  return (Math.floor(bytes / 2 ** 30) + 1) * GB;
}

function diskBytes(root: string): number | undefined {
  for (let dir = root; ; dir = dirname(dir)) {
    try {
      const stat = statfsSync(dir);
      return stat.blocks * stat.bsize;
    } catch (error) {
      const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
      if (!missing || dir === dirname(dir)) return undefined;
    }
  }
}
