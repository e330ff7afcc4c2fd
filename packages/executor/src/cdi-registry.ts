import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { parse as parseYaml } from "yaml";
import { type CdiDeviceNode, type CdiEdits, type CdiHook, HOOK_NAMES } from "./cdi-edits.ts";
import type { CdiDevice } from "./executor.ts";
import type { OciMount } from "./oci-spec.ts";
import { isMissing } from "./root-dir.ts";

// Container Device Interface: files that say what a container needs to use a device.
// https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md

const CLASS_ANNOTATION = "org.mobyproject.buildkit.device.class";
const AUTO_ALLOW_ANNOTATION = "org.mobyproject.buildkit.device.autoallow";
/** Largest file that is read. */
const MAX_SPEC_BYTES = 4 << 20;

/** A device that is known, as workers list it. */
export interface CdiDeviceInfo {
  /** `vendor/class=name` */
  readonly name: string;
  /** Builds may use it without asking. */
  readonly autoAllow: boolean;
  readonly annotations: ReadonlyMap<string, string>;
}

/** A device of a file. */
interface Device {
  readonly spec: Spec;
  readonly annotations: ReadonlyMap<string, string>;
  readonly edits: unknown;
  /** Position of its directory: later ones win. */
  readonly priority: number;
}

interface Spec {
  readonly path: string;
  readonly edits: unknown;
}

type JsonObject = { readonly [key: string]: unknown };

/** The devices that the files of some directories describe. They are read anew for every question. */
export class CdiRegistry {
  readonly #dirs: readonly string[];
  readonly #autoAllowed: ReadonlySet<string>;
  readonly #warn: (text: string) => void;

  /** `autoAllowed` names devices or kinds that builds may use without asking. */
  constructor(opts: {
    readonly specDirs: readonly string[];
    readonly autoAllowed: readonly string[];
    readonly warn?: (text: string) => void;
  }) {
    this.#dirs = opts.specDirs;
    this.#autoAllowed = new Set(opts.autoAllowed);
    this.#warn = opts.warn ?? (() => undefined);
  }

  /** All devices, by name. */
  list(): CdiDeviceInfo[] {
    return [...this.#read()].map(([name, { annotations }]) => ({
      name,
      annotations,
      autoAllow: this.#isAutoAllowed(name, annotations),
    }));
  }

  #isAutoAllowed(name: string, annotations: ReadonlyMap<string, string>): boolean {
    const [kind = ""] = name.split("=", 1);
    if (this.#autoAllowed.has(name) || this.#autoAllowed.has(kind)) return true;
    return /^(1|t|T|TRUE|true|True)$/.test(annotations.get(AUTO_ALLOW_ANNOTATION) ?? "");
  }

  /**
   * Full names of what a step asks for: a device, `kind=*` for all of a kind, `kind` for its first, or a class that
   * devices name in an annotation.
   *
   * @throws BuildError `not_found` (`required device "x" is not registered`)
   */
  find(wanted: readonly CdiDevice[]): string[] {
    if (wanted.length === 0) return [];
    const all = this.#read();
    return [...new Set(wanted.flatMap((device) => this.#findOne(device, all)))];
  }

  #findOne({ name, optional }: CdiDevice, all: ReadonlyMap<string, Device>): string[] {
    const names = [...all.keys()];
    const [kind = "", ...rest] = name.split("=");
    const local = rest.join("=");
    let found: string[] = [];
    if (/^[^/]+\/.+$/.test(kind)) {
      const ofKind = names.filter((each) => each.startsWith(`${kind}=`));
      if (local === "") found = ofKind.slice(0, 1);
      else if (local === "*") found = ofKind;
      else found = names.filter((each) => each === name);
    }
    if (found.length === 0) {
      found = names.filter((each) => all.get(each)?.annotations.get(CLASS_ANNOTATION) === name);
    }
    if (found.length === 0 && !optional) {
      throw new BuildError("not_found", `required device ${JSON.stringify(name)} is not registered`);
    }
    return found;
  }

  /** What devices change in a container; undefined when nothing is asked for. */
  edits(wanted: readonly CdiDevice[]): CdiEdits | undefined {
    const names = this.find(wanted);
    if (names.length === 0) return undefined;
    const all = this.#read();
    const parts: unknown[] = [];
    const specs = new Set<string>();
    for (const name of names) {
      const device = all.get(name);
      if (!device) continue;
      if (!specs.has(device.spec.path)) parts.push(device.spec.edits);
      specs.add(device.spec.path);
      parts.push(device.edits);
    }
    try {
      return mergeEdits(parts.map(readEdits));
    } catch (error) {
      throw new BuildError("failed_precondition", `CDI device injection failed: ${errorMessage(error)}`);
    }
  }

  #read(): ReadonlyMap<string, Device> {
    const devices = new Map<string, Device>();
    const conflicts = new Set<string>();
    for (const [priority, dir] of this.#dirs.entries()) {
      for (const path of specFiles(dir)) {
        try {
          for (const [name, device] of readSpec(path, priority)) {
            const known = devices.get(name);
            if (known?.priority === priority) conflicts.add(name);
            else conflicts.delete(name);
            devices.set(name, device);
          }
        } catch (error) {
          this.#warn(`CDI spec ${path} isn't used: ${errorMessage(error)}`);
        }
      }
    }
    for (const name of conflicts) {
      devices.delete(name);
      this.#warn(`CDI device ${name} is described twice`);
    }
    return new Map([...devices].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
  }
}

function specFiles(dir: string): string[] {
  try {
    return readdirSync(dir)
      .filter((name) => /^\.(json|ya?ml)$/.test(extname(name)))
      .sort()
      .map((name) => join(dir, name));
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function annotationsOf(...sources: readonly unknown[]): Map<string, string> {
  const all = new Map<string, string>();
  for (const source of sources) {
    if (!isObject(source)) continue;
    for (const [key, value] of Object.entries(source)) {
      // YAML's `true` is meant as the text.
      if (["string", "boolean", "number"].includes(typeof value)) all.set(key, String(value));
    }
  }
  return all;
}

function readSpec(path: string, priority: number): [string, Device][] {
  const text = readFileSync(path);
  if (text.length > MAX_SPEC_BYTES) throw new Error(`larger than ${MAX_SPEC_BYTES} bytes`);
  const spec: unknown = path.endsWith(".json") ? JSON.parse(text.toString()) : parseYaml(text.toString());
  if (!isObject(spec)) throw new Error("not an object");
  const { cdiVersion, kind, devices, annotations, containerEdits } = spec;
  if (typeof cdiVersion !== "string") throw new Error("no cdiVersion");
  if (typeof kind !== "string" || !/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w-]*$/.test(kind)) {
    throw new Error(`invalid kind ${JSON.stringify(kind)}`);
  }
  if (!Array.isArray(devices) || devices.length === 0) throw new Error("no devices");
  const common = { path, edits: containerEdits };
  readEdits(containerEdits);
  return devices.map((device: unknown): [string, Device] => {
    if (!isObject(device) || typeof device.name !== "string" || !/^[A-Za-z0-9][\w.:-]*$/.test(device.name)) {
      throw new Error("device without a valid name");
    }
    return [
      `${kind}=${device.name}`,
      {
        spec: common,
        priority,
        edits: device.containerEdits,
        annotations: annotationsOf(annotations, device.annotations),
      },
    ];
  });
}

function listOf(value: unknown, what: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Error(`${what} is not a list`);
  return value;
}

function textsOf(value: unknown, what: string): string[] {
  return listOf(value, what).map((each) => {
    if (typeof each !== "string") throw new Error(`${what} holds something that is no text`);
    return each;
  });
}

function textOf(value: unknown, what: string): string {
  if (typeof value !== "string" || value === "") throw new Error(`${what} is missing`);
  return value;
}

function numberOr<T>(value: unknown, fallback: T): number | T {
  return typeof value === "number" && Number.isInteger(value) ? value : fallback;
}

function readEdits(value: unknown): CdiEdits {
  const edits = isObject(value) ? value : {};
  if (listOf(edits.netDevices, "netDevices").length > 0) throw new Error("network devices aren't supported");
  const env = textsOf(edits.env, "env");
  const bad = env.find((entry) => entry.indexOf("=") <= 0);
  if (bad !== undefined) throw new Error(`invalid environment variable ${JSON.stringify(bad)}`);
  return {
    env,
    deviceNodes: listOf(edits.deviceNodes, "deviceNodes").map(readDeviceNode),
    hooks: listOf(edits.hooks, "hooks").map(readHook),
    mounts: listOf(edits.mounts, "mounts").map(readMount),
    additionalGids: listOf(edits.additionalGids, "additionalGids").map((gid) => numberOr(gid, 0)),
    ...(isObject(edits.intelRdt) ? { intelRdt: edits.intelRdt } : {}),
  };
}

const DEVICE_TYPES = new Map([
  [0o060000, "b"],
  [0o020000, "c"],
  [0o010000, "p"],
]);

/** A node's description; what it leaves open comes from the host's node. */
function readDeviceNode(value: unknown): CdiDeviceNode {
  const node = isObject(value) ? value : {};
  const path = textOf(node.path, "path of a device node");
  const given = typeof node.type === "string" ? node.type : "";
  if (given !== "" && !/^[bcup]$/.test(given)) throw new Error(`device ${path}: invalid type ${given}`);
  const permissions = typeof node.permissions === "string" ? node.permissions : "";
  if (!/^[rwm]*$/.test(permissions)) throw new Error(`device ${path}: invalid permissions ${permissions}`);
  const known = given !== "" && (numberOr(node.major, 0) !== 0 || given === "p");
  const host = known ? undefined : hostNode(typeof node.hostPath === "string" ? node.hostPath : path);
  const fileMode = numberOr(node.fileMode, host?.fileMode);
  const [uid, gid] = [numberOr(node.uid, undefined), numberOr(node.gid, undefined)];
  return {
    path,
    permissions,
    type: given || (host?.type ?? ""),
    major: host?.major ?? numberOr(node.major, 0),
    minor: host?.minor ?? numberOr(node.minor, 0),
    ...(fileMode === undefined ? {} : { fileMode }),
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
  };
}

function hostNode(path: string): { type: string; major: number; minor: number; fileMode: number } {
  const { mode, rdev } = lstatSync(path);
  const type = DEVICE_TYPES.get(mode & 0o170000);
  if (type === undefined) throw new Error(`${path} is no device`);
  // Linux: 12 bits of major above 8 of minor, the rest of minor on top.
  return {
    type,
    major: (rdev >> 8) & 0xfff,
    minor: (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
    fileMode: mode & 0o777,
  };
}

function readHook(value: unknown): CdiHook {
  const hook = isObject(value) ? value : {};
  const hookName = HOOK_NAMES.get(typeof hook.hookName === "string" ? hook.hookName : "");
  if (hookName === undefined) throw new Error(`unknown hook name ${JSON.stringify(hook.hookName)}`);
  const timeout = numberOr(hook.timeout, undefined);
  return {
    hookName,
    path: textOf(hook.path, "path of a hook"),
    args: textsOf(hook.args, "args"),
    env: textsOf(hook.env, "env"),
    ...(timeout === undefined ? {} : { timeout }),
  };
}

function readMount(value: unknown): OciMount {
  const mount = isObject(value) ? value : {};
  return {
    destination: textOf(mount.containerPath, "containerPath of a mount"),
    source: textOf(mount.hostPath, "hostPath of a mount"),
    type: typeof mount.type === "string" && mount.type !== "" ? mount.type : "bind",
    options: textsOf(mount.options, "options"),
  };
}

function mergeEdits(parts: readonly CdiEdits[]): CdiEdits {
  const intelRdt = parts.findLast((part) => part.intelRdt)?.intelRdt;
  return {
    env: parts.flatMap((part) => part.env),
    deviceNodes: parts.flatMap((part) => part.deviceNodes),
    hooks: parts.flatMap((part) => part.hooks),
    mounts: parts.flatMap((part) => part.mounts),
    additionalGids: parts.flatMap((part) => part.additionalGids),
    ...(intelRdt ? { intelRdt } : {}),
  };
}
