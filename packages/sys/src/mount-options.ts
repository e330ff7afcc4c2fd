import { MS } from "./flags.ts";

/** Options of mount(8) taken apart. */
export interface ParsedMountOptions {
  /** `MS_*` flags. */
  readonly flags: number;
  /** Propagation flags, set by a call of their own. */
  readonly propagation: number;
  /** What is left for the file system, in order. */
  readonly data: readonly string[];
}

/** Option → flag that it sets, or clears. */
const FLAGS: ReadonlyMap<string, { readonly clear: boolean; readonly flag: number }> = new Map([
  ["async", { clear: true, flag: MS.SYNCHRONOUS }],
  ["atime", { clear: true, flag: MS.NOATIME }],
  ["bind", { clear: false, flag: MS.BIND }],
  ["defaults", { clear: false, flag: 0 }],
  ["dev", { clear: true, flag: MS.NODEV }],
  ["diratime", { clear: true, flag: MS.NODIRATIME }],
  ["dirsync", { clear: false, flag: MS.DIRSYNC }],
  ["exec", { clear: true, flag: MS.NOEXEC }],
  ["mand", { clear: false, flag: MS.MANDLOCK }],
  ["noatime", { clear: false, flag: MS.NOATIME }],
  ["nodev", { clear: false, flag: MS.NODEV }],
  ["nodiratime", { clear: false, flag: MS.NODIRATIME }],
  ["noexec", { clear: false, flag: MS.NOEXEC }],
  ["nomand", { clear: true, flag: MS.MANDLOCK }],
  ["norelatime", { clear: true, flag: MS.RELATIME }],
  ["nostrictatime", { clear: true, flag: MS.STRICTATIME }],
  ["nosuid", { clear: false, flag: MS.NOSUID }],
  ["nosymfollow", { clear: false, flag: MS.NOSYMFOLLOW }],
  ["rbind", { clear: false, flag: MS.BIND | MS.REC }],
  ["relatime", { clear: false, flag: MS.RELATIME }],
  ["remount", { clear: false, flag: MS.REMOUNT }],
  ["ro", { clear: false, flag: MS.RDONLY }],
  ["rw", { clear: true, flag: MS.RDONLY }],
  ["strictatime", { clear: false, flag: MS.STRICTATIME }],
  ["suid", { clear: true, flag: MS.NOSUID }],
  ["sync", { clear: false, flag: MS.SYNCHRONOUS }],
]);

const PROPAGATION: ReadonlyMap<string, number> = new Map([
  ["private", MS.PRIVATE],
  ["rprivate", MS.PRIVATE | MS.REC],
  ["shared", MS.SHARED],
  ["rshared", MS.SHARED | MS.REC],
  ["slave", MS.SLAVE],
  ["rslave", MS.SLAVE | MS.REC],
  ["unbindable", MS.UNBINDABLE],
  ["runbindable", MS.UNBINDABLE | MS.REC],
]);

/** Splits options into flags, propagation and the file system's own; later ones win. */
export function parseMountOptions(options: readonly string[]): ParsedMountOptions {
  let flags = 0;
  let propagation = 0;
  const data: string[] = [];
  for (const option of options) {
    const known = FLAGS.get(option);
    const spread = PROPAGATION.get(option);
    if (known) flags = known.clear ? flags & ~known.flag : flags | known.flag;
    else if (spread !== undefined) propagation = spread;
    else if (option !== "") data.push(option);
  }
  return { flags, propagation, data };
}
