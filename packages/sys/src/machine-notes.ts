import { createHash } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

/** What tells this start of the machine, and what this process may do on it, from others. */
const IDENTITY_FILES = [
  "/proc/sys/kernel/random/boot_id",
  "/proc/self/uid_map",
  "/proc/self/gid_map",
  "/proc/self/cgroup",
];
/** Rights, and filters that a container puts around the process. */
const STATUS_LINES = /^(?:Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):.*$/gm;
const MAX_BYTES = 1 << 20;

/**
 * Remembers in a file what it takes long to find out about the machine, from one start of a program to the next.
 * A note is forgotten when the machine was booted, the process has other rights, or the note's own key differs.
 * Notes that can't be read or written only cost time.
 */
export class MachineNotes {
  readonly #file: string;
  #notes: Record<string, { readonly key: string; readonly value: unknown }> | undefined;
  #identity: string | undefined;

  /** `file` lies in a folder that only the owner can write to. */
  constructor(file: string) {
    this.#file = file;
  }

  /** What was noted under `name` for this machine and `key`. */
  get(name: string, key: string): unknown {
    const note = this.#load()[name];
    return note?.key === this.#fullKey(key) ? note.value : undefined;
  }

  /** Notes a value, which has to survive JSON. */
  set(name: string, key: string, value: unknown): void {
    const notes = this.#load();
    notes[name] = { key: this.#fullKey(key), value };
    const temporary = `${this.#file}.new`;
    try {
      writeFileSync(temporary, JSON.stringify(notes), { mode: 0o600 });
      renameSync(temporary, this.#file);
    } catch {
      rmSync(temporary, { force: true });
    }
  }

  #load(): Record<string, { readonly key: string; readonly value: unknown }> {
    this.#notes ??= readNotes(this.#file);
    return this.#notes;
  }

  #fullKey(key: string): string {
    this.#identity ??= machineIdentity();
    return createHash("sha256").update(this.#identity).update("\0").update(key).digest("hex");
  }
}

function readNotes(file: string): Record<string, { readonly key: string; readonly value: unknown }> {
  const notes = Object.create(null) as Record<string, { readonly key: string; readonly value: unknown }>;
  try {
    const text = readFileSync(file, "utf8");
    if (text.length > MAX_BYTES) return notes;
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null) return notes;
    for (const [name, note] of Object.entries(parsed)) {
      if (typeof note === "object" && note !== null && typeof note.key === "string") {
        notes[name] = { key: note.key, value: note.value };
      }
    }
  } catch {
    // none yet, or damaged
  }
  return notes;
}

function machineIdentity(): string {
  const parts = IDENTITY_FILES.map((file) => tryRead(file));
  parts.push(...(tryRead("/proc/self/status").match(STATUS_LINES) ?? []));
  return parts.join("\n");
}

function tryRead(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
