import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { cgroupMode } from "./cgroup.ts";
import { generateSpec, type SpecHost } from "./oci-spec.ts";
import type { Zygote } from "./zygote.ts";

/** The OCI runtime that runs containers, and how it has to be treated. */
export interface Runtime {
  /** Absolute path. */
  readonly path: string;
  readonly hideUnifiedCgroup: boolean;
}

/** Finds a program as a shell would; undefined when there is none. */
export function findProgram(name: string, path = process.env.PATH ?? ""): string | undefined {
  const candidates = name.includes("/") ? [name] : path.split(":").map((dir) => join(dir || ".", name));
  return candidates.find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** In the order in which they are tried: the one made for BuildKit, then the fastest that works. */
const CANDIDATES = ["buildkit-runc", "crun", "runc"];

/** The installed programs that {@link chooseRuntime} would try, in that order. */
export function runtimePaths(binary: string | undefined): string[] {
  const names = binary === undefined || binary === "" ? CANDIDATES : [binary];
  return names.map((name) => findProgram(name)).filter((path) => path !== undefined);
}

/**
 * Chooses the OCI runtime: `binary` (a name or path) when given, else the first of `buildkit-runc`, `crun` and
 * `runc` that is installed and gets as far as looking for the program in a trial container.
 *
 * @throws BuildError `not_found` when none is there, `failed_precondition` when none works.
 */
export async function chooseRuntime(
  binary: string | undefined,
  trial: (runtime: Runtime) => Promise<string>,
): Promise<Runtime> {
  const names = binary === undefined || binary === "" ? CANDIDATES : [binary];
  const failures: string[] = [];
  for (const name of names) {
    const path = findProgram(name);
    if (path === undefined) continue;
    // crun refuses cgroup v1 trees with a v2 tree beside them; runc uses the former as they are.
    const hideUnifiedCgroup = cgroupMode() === "hybrid" && !/runc$/.test(path);
    const runtime = { path, hideUnifiedCgroup };
    const failure = await trial(runtime);
    if (failure === "") return runtime;
    failures.push(`${path}: ${failure}`);
  }
  if (failures.length > 0)
    throw new BuildError("failed_precondition", `no OCI runtime works: ${failures.join("; ")}`);
  throw new BuildError("not_found", `failed to find ${names[0]} binary`, {
    hint: "install crun or runc, or name a runtime with --oci-worker-binary",
  });
}

const LOOKED_FOR = "/kiln-trial";

/**
 * Has a runtime start a container without a program. One that then misses the program has done everything else.
 * Returns "" for it, else what it said.
 */
export async function tryRuntime(
  zygote: Zygote,
  runtime: Runtime,
  host: SpecHost,
  dir: string,
): Promise<string> {
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const bundle = mkdtempSync(join(dir, "trial"));
  try {
    const rootPath = join(bundle, "rootfs");
    mkdirSync(rootPath);
    writeFileSync(join(bundle, "empty"), "");
    const spec = generateSpec({
      host,
      args: [LOOKED_FOR],
      env: [],
      cwd: "/",
      tty: false,
      user: { uid: 0, gid: 0, supplementaryGids: [] },
      rootPath,
      readonlyRoot: false,
      hostname: "trial",
      network: { kind: "new" },
      cgroupsPath: `/buildkit/kilntrial${process.pid}`,
      securityMode: "sandbox",
      ulimits: [],
      resources: {},
      resolvConf: join(bundle, "empty"),
      hosts: join(bundle, "empty"),
      mounts: [],
    });
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    const argv = [
      runtime.path,
      "--root",
      join(bundle, "state"),
      "run",
      "--bundle",
      bundle,
      `kilntrial${process.pid}`,
    ];
    const { stderr } = await zygote.request("command", { argv, env: [], stdin: "" });
    return /no such file or directory|not found/i.test(stderr) && stderr.includes(LOOKED_FOR)
      ? ""
      : stderr.trim();
  } catch (error) {
    return errorMessage(error);
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

/** What a runtime can do besides the standard. */
export interface RuntimeTraits {
  /** It can leave a container's state behind (`run --keep`). */
  readonly keeps: boolean;
  /** It takes a compiled seccomp filter; crun 1.0 and later do. */
  readonly takesSeccompBpf: boolean;
}

/** Asks a runtime about itself. */
export async function runtimeTraits(zygote: Zygote, runtime: Runtime): Promise<RuntimeTraits> {
  const ask = async (...args: string[]): Promise<string> => {
    const { stdout } = await zygote.request("command", { argv: [runtime.path, ...args], env: [], stdin: "" });
    return stdout;
  };
  const [help, version] = await Promise.all([ask("run", "--help"), ask("--version")]);
  const takesSeccompBpf = /^crun version [1-9]/.test(version) && version.includes("+SECCOMP");
  return { keeps: help.includes("--keep"), takesSeccompBpf };
}
