import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, type RunResult, run, start } from "./run.ts";

/** An image on disk, unpacked as a bundle of the OCI runtime. */
export interface UnpackedImage {
  readonly bundle: string;
  /** Its root file system. */
  readonly root: string;
  /** The image's configuration , as it is in the image. */
  readonly config: ImageConfig;
}

/** The part of an image's configuration that the tests read. */
export interface ImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly history?: readonly { readonly created_by?: string; readonly empty_layer?: boolean }[];
  readonly rootfs: { readonly diff_ids: readonly string[] };
}

/** Pulls an image from a registry with skopeo, for a platform or for the machine's, and unpacks it with umoci. */
export async function unpackFromRegistry(
  folder: string,
  reference: string,
  platform?: string,
): Promise<UnpackedImage> {
  const work = mkdtempSync(join(folder, "unpacked-"));
  const args = ["copy", "--src-tls-verify=false", `docker://${reference}`, `oci:${work}/layout:image`];
  const [os, arch, variant] = platform?.split("/") ?? [];
  const chosen = [
    ["--override-os", os],
    ["--override-arch", arch],
    ["--override-variant", variant],
  ].flatMap(([flag, value]) => (flag !== undefined && value !== undefined ? [flag, value] : []));
  await must("skopeo", ["--insecure-policy", ...chosen, ...args]);
  return unpack(work);
}

async function unpack(work: string): Promise<UnpackedImage> {
  const bundle = join(work, "bundle");
  await must("umoci", ["unpack", "--image", `${work}/layout:image`, bundle]);
  const config = await must("skopeo", ["inspect", "--config", "--raw", `oci:${work}/layout:image`]);
  return { bundle, root: join(bundle, "rootfs"), config: JSON.parse(config) as ImageConfig };
}

interface RuntimeConfig {
  process: { terminal?: boolean };
  linux: { namespaces: { type: string }[] };
}

/** Readies the bundle for crun: no terminal, and the machine's network. */
function prepare(image: UnpackedImage): void {
  const file = join(image.bundle, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as RuntimeConfig;
  config.process.terminal = false;
  config.linux.namespaces = config.linux.namespaces.filter((namespace) => namespace.type !== "network");
  writeFileSync(file, JSON.stringify(config));
}

function containerId(): string {
  return `kiln-e2e-${randomBytes(6).toString("hex")}`;
}

const UNIFIED_CGROUP = "/sys/fs/cgroup/unified";

/**
 * The command line that runs a bundle. crun refuses a machine with both cgroup versions: there it gets a mount
 * namespace that shows only the first one.
 */
function crunCommand(image: UnpackedImage, id: string): [string, string[]] {
  const crun = ["crun", "--root", stateFolder(image), "run", "--bundle", image.bundle, id];
  if (!existsSync(UNIFIED_CGROUP)) return ["crun", crun.slice(1)];
  const script = `umount -l ${UNIFIED_CGROUP} && exec "$@"`;
  return ["unshare", ["--mount", "--propagation", "private", "sh", "-c", script, "-", ...crun]];
}

function stateFolder(image: UnpackedImage): string {
  const state = join(image.bundle, "crun");
  mkdirSync(state, { recursive: true });
  return state;
}

/** Runs an unpacked image's own command with crun to its end. */
export function runImage(image: UnpackedImage): Promise<RunResult> {
  prepare(image);
  return run(...crunCommand(image, containerId()), { timeoutMs: 60_000 });
}

/** A container that runs in the background. */
export interface RunningContainer extends AsyncDisposable {
  /** What it has printed so far. */
  output(): string;
}

/** Starts an unpacked image's own command with crun; disposing kills it. */
export function startImage(image: UnpackedImage): RunningContainer {
  prepare(image);
  const id = containerId();
  const child: ChildProcess = start(...crunCommand(image, id));
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
  }
  const closed = new Promise<void>((resolve) => child.on("close", () => resolve()));
  return {
    output: () => text,
    async [Symbol.asyncDispose]() {
      await run("crun", ["--root", stateFolder(image), "kill", id, "KILL"]);
      await closed;
    },
  };
}
