import { cleanPath } from "@kiln/hcl";
import type { BakeHost, HostStat } from "../host.ts";
import { absolutePath } from "../paths.ts";

/** What there is on a machine that only tests see. */
export interface MemoryMachine {
  readonly files?: Readonly<Record<string, string>>;
  /** Unix sockets. */
  readonly sockets?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** A host whose files and environment are given. Paths are relative to `/work/case`. */
export function memoryHost({ files = {}, sockets = [], env = {}, cwd = "." }: MemoryMachine): BakeHost {
  const root = "/work/case";
  const here = absolutePath(cwd, root);
  const found = new Map(Object.entries(files).map(([name, text]) => [absolutePath(name, root), text]));
  const isDirectory = (path: string): boolean =>
    path === "/" || root.startsWith(path) || [...found.keys()].some((name) => name.startsWith(`${path}/`));
  const stat = (given: string): HostStat | undefined => {
    const path = absolutePath(given, here);
    const text = found.get(path);
    if (text !== undefined) return { kind: "file", size: text.length };
    if (sockets.includes(given) || sockets.some((name) => absolutePath(name, root) === path))
      return { kind: "socket", size: 0 };
    return isDirectory(path) ? { kind: "directory", size: 0 } : undefined;
  };
  return {
    cwd: here,
    localPlatform: "linux/amd64",
    readFile: (path) => {
      const text = found.get(absolutePath(path, here));
      return text === undefined ? undefined : new TextEncoder().encode(text);
    },
    stat,
    realPath: (path) => (stat(path) === undefined ? undefined : cleanPath(absolutePath(path, here))),
    env: (name) => (Object.hasOwn(env, name) ? env[name] : undefined),
    environ: () => Object.entries(env),
    homeDir: () => env.HOME ?? "/home/me",
    now: () => new Date(0),
    randomBytes: (count) => new Uint8Array(count).fill(7),
  };
}
