import type { OciMount, OciSpec } from "./oci-spec.ts";

/** A device node to make in a container, with what the host knows about it filled in. */
export interface CdiDeviceNode {
  readonly path: string;
  readonly type: string;
  readonly major: number;
  readonly minor: number;
  readonly fileMode?: number;
  readonly permissions: string;
  readonly uid?: number;
  readonly gid?: number;
}

/** A program that the runtime runs at a point of a container's life. */
export interface CdiHook {
  readonly hookName: string;
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly timeout?: number;
}

/** What devices change in a container's specification, in the order of application. */
export interface CdiEdits {
  readonly env: readonly string[];
  readonly deviceNodes: readonly CdiDeviceNode[];
  readonly hooks: readonly CdiHook[];
  readonly mounts: readonly OciMount[];
  readonly additionalGids: readonly number[];
  readonly intelRdt?: Readonly<Record<string, unknown>>;
}

/** Names of the hooks that a specification knows. */
export const HOOK_NAMES: ReadonlyMap<string, string> = new Map([
  ["prestart", "prestart"],
  ["createRuntime", "createRuntime"],
  ["createContainer", "createContainer"],
  ["startContainer", "startContainer"],
  ["poststart", "poststart"],
  ["poststop", "poststop"],
]);

/** Variables of `added` over those of `env`: a known name keeps its place. */
export function mergeEnv(env: readonly string[], added: readonly string[]): string[] {
  const nameOf = (entry: string): string => entry.slice(0, entry.indexOf("=") >>> 0);
  const merged = [...env];
  for (const entry of added) {
    const at = merged.findIndex((known) => nameOf(known) === nameOf(entry));
    if (at >= 0) merged[at] = entry;
    else merged.push(entry);
  }
  return merged;
}

/** Mounts with those of devices among them, parents first. */
export function mergeMounts(mounts: readonly OciMount[], added: readonly OciMount[]): OciMount[] {
  if (added.length === 0) return [...mounts];
  const depth = ({ destination }: OciMount): number => destination.split("/").filter(Boolean).length;
  const replaced = new Set(added.map(({ destination }) => destination));
  const all = [...mounts.filter(({ destination }) => !replaced.has(destination)), ...added];
  return all.sort((a, b) => depth(a) - depth(b));
}

/** Applies everything but variables and mounts, which have their place while a specification is made. */
export function applyCdiEdits(spec: OciSpec, edits: CdiEdits): void {
  const { uid, gid, additionalGids } = spec.process.user;
  const devices = new Map((spec.linux.devices ?? []).map((device) => [device.path, device]));
  const rules: unknown[] = [];
  for (const { path, type, major, minor, fileMode, permissions, ...owner } of edits.deviceNodes) {
    const own = {
      uid: owner.uid ?? (uid > 0 ? uid : undefined),
      gid: owner.gid ?? (gid > 0 ? gid : undefined),
    };
    devices.delete(path);
    devices.set(path, { path, type, major, minor, ...(fileMode === undefined ? {} : { fileMode }), ...own });
    if (type === "b" || type === "c")
      rules.push({ allow: true, type, major, minor, access: permissions || "rwm" });
  }
  if (devices.size > 0) spec.linux.devices = [...devices.values()];
  const resources = spec.linux.resources;
  if (resources && Array.isArray(resources.devices)) resources.devices = [...resources.devices, ...rules];
  for (const { hookName, ...hook } of edits.hooks) {
    spec.hooks ??= {};
    spec.hooks[hookName] = [...(spec.hooks[hookName] ?? []), hook];
  }
  for (const extra of edits.additionalGids) {
    if (extra !== 0 && !additionalGids.includes(extra)) additionalGids.push(extra);
  }
  if (edits.intelRdt) spec.linux.intelRdt = edits.intelRdt;
}
