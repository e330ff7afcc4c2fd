import { readFileSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { resolve } from "node:path";
import type { BakeHost, HostStat } from "@kiln/bake";

/** What to use of the machine. */
export interface NodeBakeHostOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `BAKE_LOCAL_PLATFORM`; this machine's when absent. */
  readonly localPlatform?: string;
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

function isMissing(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === "ENOENT" || code === "ENOTDIR";
}

/** Runs `work`; `undefined` when the path doesn't exist. */
function present<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function statOf(path: string): HostStat {
  const stat = statSync(path);
  const kind = stat.isFile()
    ? "file"
    : stat.isDirectory()
      ? "directory"
      : stat.isSocket()
        ? "socket"
        : "other";
  return { kind, size: stat.size };
}

/** This machine, for evaluating bake definitions. */
export function nodeBakeHost(options: NodeBakeHostOptions = {}): BakeHost {
  const cwd = options.cwd ?? process.cwd();
  const env = options.env ?? process.env;
  const at = (path: string): string => resolve(cwd, path);
  return {
    cwd,
    localPlatform: options.localPlatform ?? `linux/${ARCHITECTURES[process.arch] ?? process.arch}`,
    readFile: (path) => present(() => readFileSync(at(path))),
    stat: (path) => present(() => statOf(at(path))),
    realPath: (path) => present(() => realpathSync(at(path))),
    env: (name) => (Object.hasOwn(env, name) ? env[name] : undefined),
    environ: () =>
      Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const])),
    homeDir: () => env.HOME || homedir(),
    now: () => new Date(),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
  };
}
