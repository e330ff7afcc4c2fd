import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { findFreeLoop } from "./libc.ts";
import type { InsecureGrants } from "./oci-spec.ts";

/** Linux's capabilities by number. */
const CAPABILITIES = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
];

/** Names of the capabilities in the hexadecimal set of `/proc/<pid>/status`. */
export function capabilityNames(hex: string): string[] {
  const set = BigInt(`0x${hex}`);
  return CAPABILITIES.filter((_, bit) => (set >> BigInt(bit)) & 1n).map((name) => `CAP_${name}`);
}

/** True inside a user namespace that maps fewer than all ids. */
export function inUserNamespace(): boolean {
  const [line = ""] = readFileSync("/proc/self/uid_map", "utf8").split("\n");
  const [inside, outside, count] = line.trim().split(/\s+/);
  return !(inside === "0" && outside === "0" && count === "4294967295");
}

/** True when a group id exists in this process's user namespace. */
export function mapsGroup(gid: number): boolean {
  return readFileSync("/proc/self/gid_map", "utf8")
    .trim()
    .split("\n")
    .some((line) => {
      const [first = 0, , count = 0] = line.trim().split(/\s+/).map(Number);
      return gid >= first && gid < first + count;
    });
}

/** What a step in insecure mode gets: what this process itself may do, no more. */
export function insecureGrants(): InsecureGrants {
  const status = readFileSync("/proc/self/status", "utf8");
  const capabilities = capabilityNames(/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0");
  return inUserNamespace() ? { capabilities } : { capabilities, freeLoop: freeLoop() };
}

/** Number of the next free loop device, 0 when that can't be told. */
function freeLoop(): number {
  if (!existsSync("/dev/loop-control")) return 0;
  const control = openSync("/dev/loop-control", "r+");
  try {
    return findFreeLoop(control);
  } catch {
    return 0;
  } finally {
    closeSync(control);
  }
}
