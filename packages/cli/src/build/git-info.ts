/** What a build records about the git repository that its context lies in, read from the repository's own files. */
import { execFile } from "node:child_process";
import { readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, isAbsolute, join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { envBool } from "./request-from-flags.ts";

type Env = Readonly<Record<string, string | undefined>>;

const MAX_FILE_BYTES = 8 << 20;
const MAX_REF_DEPTH = 5;

/** A checkout: its root, its commit (empty before the first), its remote's URL (may be empty). */
export interface GitInfo {
  readonly root: string;
  readonly revision: string;
  readonly remote: string;
}

/** The checkout that a directory lies in, undefined when there is none. */
export function readGitInfo(directory: string): GitInfo | undefined {
  for (let dir = realpathSync(directory); ; dir = dirname(dir)) {
    const gitDir = gitDirOf(join(dir, ".git"));
    if (gitDir !== undefined) {
      const common = commonDirOf(gitDir);
      const head = (readText(join(gitDir, "HEAD")) ?? "").trim();
      const branch = /^ref: refs\/heads\/(.+)$/.exec(head)?.[1];
      return { root: dir, revision: resolveRef(head, gitDir, common), remote: remoteUrl(common, branch) };
    }
    if (dir === dirname(dir)) return undefined;
  }
}

/**
 * Frontend attributes of the context's repository, as `BUILDX_GIT_INFO`, `BUILDX_GIT_LABELS` and
 * `BUILDX_GIT_CHECK_DIRTY` want them. `mounts` are the build's local directories by name.
 */
export async function gitAttributes(
  context: string,
  build: { readonly dockerfile: string; readonly mounts: ReadonlyMap<string, string>; readonly env: Env },
): Promise<Map<string, string>> {
  const { env } = build;
  const wantsInfo = softBool(env, "BUILDX_GIT_INFO") ?? true;
  const wantsLabels = env.BUILDX_GIT_LABELS === "full" || (softBool(env, "BUILDX_GIT_LABELS") ?? false);
  const attrs = new Map<string, string>();
  if (!wantsInfo && !wantsLabels) return attrs;
  const info = readGitInfo(context);
  if (info === undefined) return attrs;
  const set = (label: string, attr: string, value: string): void => {
    if (value === "") return;
    if (wantsLabels) attrs.set(`label:${label}`, value);
    if (wantsInfo) attrs.set(attr, value);
  };
  const dirty = softBool(env, "BUILDX_GIT_CHECK_DIRTY") && info.revision !== "" && (await isDirty(context));
  set("org.opencontainers.image.revision", "vcs:revision", `${info.revision}${dirty ? "-dirty" : ""}`);
  set("org.opencontainers.image.source", "vcs:source", info.remote);
  if (wantsLabels) {
    const place = inside(info.root, resolve(build.dockerfile || join(context, "Dockerfile")));
    if (place !== undefined) attrs.set("label:com.docker.image.source.entrypoint", place);
  }
  if (wantsInfo) {
    for (const [name, dir] of build.mounts) {
      const place = inside(info.root, realpathSync(dir));
      if (place !== undefined) attrs.set(`vcs:localdir:${name}`, place === "" ? "." : place);
    }
  }
  return attrs;
}

/** A URL without user and password. */
export function stripCredentials(url: string): string {
  return url.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@]*@/i, "$1");
}

function softBool(env: Env, name: string): boolean | undefined {
  try {
    return envBool(env, name);
  } catch {
    return undefined;
  }
}

function gitDirOf(path: string): string | undefined {
  try {
    if (statSync(path).isDirectory()) return readText(join(path, "HEAD")) === undefined ? undefined : path;
  } catch {
    return undefined;
  }
  const target = /^gitdir: (.+)$/m.exec(readText(path) ?? "")?.[1];
  return target === undefined ? undefined : resolve(dirname(path), target);
}

function commonDirOf(gitDir: string): string {
  const common = readText(join(gitDir, "commondir"))?.trim();
  return common ? resolve(gitDir, common) : gitDir;
}

function resolveRef(head: string, gitDir: string, common: string): string {
  let value = head;
  for (let depth = 0; depth < MAX_REF_DEPTH; depth++) {
    if (/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(value)) return value;
    const name = /^ref: (refs\/[^\s]+)$/.exec(value)?.[1];
    if (name === undefined || name.split("/").includes("..")) return "";
    value = (readText(join(gitDir, name)) ?? readText(join(common, name)) ?? packedRef(common, name)).trim();
  }
  return "";
}

function packedRef(common: string, name: string): string {
  for (const line of (readText(join(common, "packed-refs")) ?? "").split("\n")) {
    const [hash, ref] = line.split(" ");
    if (ref === name) return hash as string;
  }
  return "";
}

function remoteUrl(common: string, branch: string | undefined): string {
  const config = readConfig(readText(join(common, "config")) ?? "");
  const tracked = branch === undefined ? undefined : config.get(`branch.${branch}.remote`);
  for (const remote of [tracked, "origin", "upstream"]) {
    const url = remote === undefined ? undefined : config.get(`remote.${remote}.url`);
    if (url) return stripCredentials(url);
  }
  return "";
}

/** `section.subsection.key` → the first value. */
function readConfig(text: string): Map<string, string> {
  const values = new Map<string, string>();
  let section = "";
  for (const line of text.split("\n")) {
    const header = /^\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]/.exec(line);
    if (header) {
      const name = (header[1] as string).toLowerCase();
      section = header[2] === undefined ? name : `${name}.${header[2].replace(/\\(.)/g, "$1")}`;
      continue;
    }
    const pair = /^\s*([A-Za-z][A-Za-z0-9-]*)\s*=\s*(.*?)\s*$/.exec(line);
    if (!pair) continue;
    const key = `${section}.${(pair[1] as string).toLowerCase()}`;
    if (!values.has(key)) values.set(key, (pair[2] as string).replace(/^"(.*)"$/, "$1"));
  }
  return values;
}

async function isDirty(directory: string): Promise<boolean> {
  try {
    const args = ["-c", "core.fsmonitor=false", "-C", directory, "status", "--porcelain", "--ignored"];
    const { stdout } = await promisify(execFile)("git", args, { maxBuffer: 64 << 20 });
    return stdout.trim() !== "";
  } catch {
    return true;
  }
}

function inside(root: string, path: string): string | undefined {
  const place = relative(root, path);
  return place.startsWith("..") || isAbsolute(place) ? undefined : place;
}

function readText(path: string): string | undefined {
  try {
    if (statSync(path).size > MAX_FILE_BYTES) return undefined;
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
