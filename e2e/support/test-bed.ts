import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pushBusybox, pushDebian } from "./base-images.ts";
import { BIN, type LocalDaemon, startKilnd } from "./kilnd.ts";
import { type LocalRegistry, startRegistry } from "./registry.ts";
import { must, type RunOptions, type RunResult, run } from "./run.ts";
import { makeTestFolder, removeTestFolder } from "./test-folder.ts";

/** A registry with base images, a daemon that reads docker.io from it, and `kiln` set up to use that daemon. */
export interface TestBed extends AsyncDisposable {
  readonly folder: string;
  readonly registry: LocalRegistry;
  daemon(): LocalDaemon;
  /** Ends the daemon in order and starts it again on the same root. */
  restart(): Promise<void>;
  /** Starts a daemon again after the last one has ended by itself. */
  startDaemon(): Promise<void>;
  /** Runs `kiln`, whatever its exit code. */
  kiln(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** `kiln build --progress=plain`, which has to succeed; gives the progress. */
  build(args: readonly string[], options?: RunOptions): Promise<string>;
  buildctl(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Writes the files of a build context below a folder of the test and gives its path. */
  context(name: string, files: Readonly<Record<string, string>>): string;
  /** Environment under which `kiln` finds the builder. */
  env(): Record<string, string>;
}

/** The base images that a test needs. */
export interface TestBedOptions {
  readonly debian?: boolean;
  /** Further tables of the daemon's configuration. */
  readonly settings?: string;
  /** Puts the daemon's root on a file system of this size (a tmpfs), so that it can be filled. */
  readonly rootSizeMib?: number;
}

const BUILD_TIMEOUT_MS = 400_000;
const BUILDER = "e2e";

/** Makes a test bed in a folder of its own. Disposing it fails when something of it is left. */
export async function openTestBed(name: string, options: TestBedOptions = {}): Promise<TestBed> {
  const folder = makeTestFolder(name);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTestFolder(folder));
  const registry = undo.use(await startRegistry(folder));
  await pushBusybox(folder, registry.host);
  if (options.debian) await pushDebian(folder, registry.host);
  if (options.rootSizeMib !== undefined) {
    undo.use(await mountTmpfs(join(folder, "root"), options.rootSizeMib));
  }
  const startDaemonHere = () => startKilnd(folder, registry.host, options.settings);
  let daemon = await startDaemonHere();
  undo.defer(async () => {
    await daemon.stop();
    for (const dir of [join(folder, "tmp"), join(daemon.root, "tmp")]) {
      const left = readdirSync(dir);
      if (left.length > 0) throw new Error(`left in ${dir}: ${left.join(", ")}`);
    }
  });
  const tmp = join(folder, "tmp");
  mkdirSync(tmp);
  const env = {
    BUILDX_CONFIG: join(folder, "buildx"),
    HOME: folder,
    DOCKER_CONFIG: join(folder, "docker"),
    TMPDIR: tmp,
  };
  const call = (program: string, args: readonly string[], runOptions: RunOptions = {}) =>
    run(join(BIN, program), args, {
      timeoutMs: BUILD_TIMEOUT_MS,
      ...runOptions,
      env: { ...env, ...runOptions.env },
    });
  const kiln = (args: readonly string[], runOptions?: RunOptions) => call("kiln", args, runOptions);
  const created = await kiln(["create", "--driver", "remote", "--name", BUILDER, "--use", daemon.address]);
  if (created.code !== 0) throw new Error(`kiln create: ${created.stderr}`);
  const kept = undo.move();
  const startDaemon = async () => {
    daemon = await startDaemonHere();
  };
  return {
    folder,
    registry,
    daemon: () => daemon,
    env: () => env,
    startDaemon,
    async restart() {
      await daemon.stop();
      await startDaemon();
    },
    kiln,
    async build(args, runOptions) {
      const result = await kiln(["build", "--progress=plain", ...args], runOptions);
      if (result.code === 0) return result.stderr + result.stdout;
      throw new Error(
        `kiln build ${args.join(" ")} ended with ${result.code}\n${result.stderr.slice(-8000)}`,
      );
    },
    buildctl: (args, runOptions) => call("buildctl", ["--addr", daemon.address, ...args], runOptions),
    context: (contextName, files) => writeContext(join(folder, "contexts", contextName), files),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Mounts a small file system on a new folder; disposing takes it away. */
export async function mountTmpfs(folder: string, sizeMib: number): Promise<AsyncDisposable> {
  mkdirSync(folder, { recursive: true });
  await must("mount", ["-t", "tmpfs", "-o", `size=${sizeMib}m,mode=0755`, "kiln-e2e", folder]);
  return {
    async [Symbol.asyncDispose]() {
      await must("umount", [folder]);
    },
  };
}

/** Writes files by their paths into a folder, which it gives. */
export function writeContext(folder: string, files: Readonly<Record<string, string>>): string {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

/** Reads a file as text. */
export function readText(...parts: string[]): string {
  return readFileSync(join(...parts), "utf8");
}
