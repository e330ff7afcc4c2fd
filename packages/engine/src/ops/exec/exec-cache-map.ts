import { createHash } from "node:crypto";
import { posix } from "node:path";
import { clone } from "@bufbuild/protobuf";
import {
  CacheSharingOpt,
  type ExecOp,
  ExecOpSchema,
  type Mount,
  MountContentCache,
  MountType,
  type Platform,
} from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { goStruct } from "../../cache-digest/go-json.ts";
import { type ContentSelector, plainSelector } from "../../content-hash/content-key.ts";
import { hostPlatform } from "../../worker/host-platform.ts";
import { jsonDigest } from "../json-digest.ts";

const ROOT = "/";

/** How one input of an exec op is cached. */
export interface ExecDep {
  /** Digest of the paths that the op's mounts show of it. */
  readonly selector: string | undefined;
  /** What a content-based key covers; undefined for none. */
  readonly selectors: readonly ContentSelector[] | undefined;
}

/**
 * Digest of the operation alone, from the text that BuildKit makes of it (`buildkit.exec.v0`). Left out is what
 * doesn't change the result or is in the inputs' keys: selectors, ids of cache mounts other than the default
 * one, proxy settings, addresses of extra hosts; and, for compatibility with old caches, the mount of a step
 * that has but a plain root.
 */
export function execCacheDigest(op: ExecOp, platform: Platform | undefined): string {
  const exec = clone(ExecOpSchema, op);
  for (const host of exec.meta?.extraHosts ?? []) host.IP = "";
  for (const mount of exec.mounts) {
    mount.selector = "";
    if (mount.cacheOpt && !isDefaultCache(mount)) {
      mount.cacheOpt.ID = "";
      mount.cacheOpt.sharing = CacheSharingOpt.SHARED;
    }
  }
  if (exec.meta) delete exec.meta.proxyEnv;
  const [only] = exec.mounts;
  if (exec.mounts.length === 1 && only && isPlainRoot(only)) exec.mounts = [];
  const fields = platformFields(platform);
  return jsonDigest({ Type: "buildkit.exec.v0", Exec: goStruct(ExecOpSchema, exec), ...fields });
}

function platformFields(platform: Platform | undefined) {
  const { OS, Architecture, Variant, OSVersion, OSFeatures } = platform ?? {
    OS: hostPlatform().os,
    Architecture: hostPlatform().architecture,
    Variant: hostPlatform().variant ?? "",
    OSVersion: "",
    OSFeatures: [],
  };
  return {
    OS,
    Arch: Architecture,
    ...(Variant === "" ? {} : { Variant }),
    ...(OSVersion === "" ? {} : { OSVersion }),
    ...(OSFeatures.length === 0 ? {} : { OSFeatures: [...OSFeatures] }),
  };
}

/** A cache mount as a Dockerfile makes it without an id: `<dest>` or `<namespace>/<dest>`, shared. */
function isDefaultCache({ cacheOpt, dest }: Mount): boolean {
  if (cacheOpt === undefined || cacheOpt.sharing !== CacheSharingOpt.SHARED) return false;
  if (cacheOpt.ID === dest) return true;
  const slash = cacheOpt.ID.indexOf("/");
  return slash >= 0 && cacheOpt.ID.slice(slash + 1) === dest;
}

function isPlainRoot(mount: Mount): boolean {
  return (
    mount.dest === ROOT &&
    !mount.readonly &&
    mount.mountType === MountType.BIND &&
    mount.cacheOpt === undefined &&
    mount.SSHOpt === undefined &&
    mount.secretOpt === undefined &&
    mount.resultID === ""
  );
}

/**
 * How each input is cached. An input has a content-based key where what the step can't see of it can't get into
 * its result: it is mounted read-only, has no output, or is mounted whole. By default the root has none.
 *
 * @throws BuildError `invalid_argument` for a mount of an unknown input, or one that wants an unsafe key.
 */
export function execDeps(op: ExecOp, inputCount: number): ExecDep[] {
  const paths: string[][] = Array.from({ length: inputCount }, () => []);
  const byContent: boolean[] = new Array(inputCount).fill(false);
  for (const mount of op.mounts) {
    const { mountType } = mount;
    if (mountType === MountType.SECRET || mountType === MountType.SSH || mountType === MountType.TMPFS)
      continue;
    if (mount.input === -1n) continue;
    const index = Number(mount.input);
    const seen = paths[index];
    if (mount.input < 0n || seen === undefined) {
      throw new BuildError("invalid_argument", `invalid mountinput ${mount.input}`);
    }
    const path = rooted(mount.selector);
    seen.push(path);
    byContent[index] = hasContentKey(mount, path);
  }
  return paths.map((each, index) => ({
    selector:
      each.length === 0 ? undefined : `sha256:${createHash("sha256").update(each.join("\0")).digest("hex")}`,
    selectors: byContent[index] ? selectorsOf(outermost(each)) : undefined,
  }));
}

function hasContentKey(mount: Mount, path: string): boolean {
  const safe = mount.output === -1n || mount.readonly || path === ROOT;
  switch (mount.contentCache) {
    case MountContentCache.OFF:
      return false;
    case MountContentCache.ON:
      if (!safe) throw new BuildError("invalid_argument", `invalid mount cache content ${mount.dest}`);
      return true;
    default:
      return safe && mount.dest !== ROOT;
  }
}

/** Go's `path.Join("/", p)`. */
function rooted(path: string): string {
  const clean = posix.join("/", path);
  return clean.length > 1 && clean.endsWith("/") ? clean.slice(0, -1) : clean;
}

/** The paths that aren't below another, sorted, each once. */
function outermost(paths: readonly string[]): string[] {
  if (paths.length <= 1) return [...paths];
  const all = [...new Set(paths)];
  const below = (path: string, other: string): boolean =>
    path !== other && path.startsWith(other.endsWith("/") ? other : `${other}/`);
  return all
    .filter((path) => !all.some((other) => below(path, other)))
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function selectorsOf(paths: readonly string[]): ContentSelector[] {
  return paths.some((path) => path === ROOT) ? [] : paths.map((path) => plainSelector(path, true));
}
