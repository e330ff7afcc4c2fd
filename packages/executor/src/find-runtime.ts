import { rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { MachineNotes } from "@kiln/sys";
import { cgroupMode } from "./cgroup.ts";
import { DEFAULT_CAPABILITIES, type SpecHost } from "./oci-spec.ts";
import {
  chooseRuntime,
  type Runtime,
  type RuntimeTraits,
  runtimePaths,
  runtimeTraits,
  tryRuntime,
} from "./runtime-choice.ts";
import { defaultSeccomp, type OciSeccomp } from "./seccomp.ts";
import { compileSeccomp, libSeccompVersion } from "./seccomp-compile.ts";
import type { Zygote } from "./zygote.ts";

/** A runtime that works here, and what to tell it. */
export interface FoundRuntime {
  readonly runtime: Runtime;
  readonly traits: RuntimeTraits;
  /** The default profile, compiled, in base64; undefined when the runtime is to compile it itself. */
  readonly seccompBpf: string | undefined;
}

const RUNTIME_NOTE = "runtime";
const SECCOMP_NOTE = "seccomp";

/**
 * Chooses the runtime by trying (see {@link chooseRuntime}), or from the notes of an earlier start. Those count
 * as long as the machine, the runtimes' files and how containers are set up are the same.
 *
 * @throws what {@link chooseRuntime} throws
 */
export async function findRuntime(
  options: { readonly binary?: string; readonly zygote: Zygote; readonly notes?: MachineNotes },
  host: SpecHost,
  root: string,
): Promise<FoundRuntime> {
  const { notes, zygote, binary } = options;
  const key = JSON.stringify([runtimePaths(binary).map(fileIdentity), host, cgroupMode(), root]);
  const noted = asChoice(notes?.get(RUNTIME_NOTE, key));
  const choosing = noted ? undefined : tryRuntimes(zygote, binary, host, root);
  choosing?.catch(() => undefined);
  // Meanwhile the zygote is still starting.
  const filter = host.seccomp ? compiledSeccomp(host, notes) : undefined;
  const choice = noted ?? (await (choosing as Promise<Choice>));
  if (!noted) notes?.set(RUNTIME_NOTE, key, choice);
  return { ...choice, seccompBpf: choice.traits.takesSeccompBpf ? filter : undefined };
}

type Choice = Omit<FoundRuntime, "seccompBpf">;

async function tryRuntimes(
  zygote: Zygote,
  binary: string | undefined,
  host: SpecHost,
  root: string,
): Promise<Choice> {
  const trial = join(root, "trial");
  const asked = new Map<string, Promise<RuntimeTraits>>();
  const runtime = await chooseRuntime(binary, async (candidate) => {
    const config = { runtime: candidate.path, runtimeKeeps: false, noPivotRoot: false, host };
    const { hideUnifiedCgroup } = candidate;
    await zygote.request("configure", { ...config, hideUnifiedCgroup, runDir: join(root, "run") });
    const traits = runtimeTraits(zygote, candidate);
    traits.catch(() => undefined);
    asked.set(candidate.path, traits);
    return await tryRuntime(zygote, candidate, host, trial);
  });
  rmSync(trial, { recursive: true, force: true });
  return { runtime, traits: await (asked.get(runtime.path) as Promise<RuntimeTraits>) };
}

function fileIdentity(path: string): string {
  const { dev, ino, size, mtimeMs, ctimeMs } = statSync(path);
  return [path, dev, ino, size, mtimeMs, ctimeMs].join(" ");
}

function asChoice(value: unknown): Choice | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { runtime, traits } = value as Record<string, Record<string, unknown> | undefined>;
  const { path, hideUnifiedCgroup } = runtime ?? {};
  const { keeps, takesSeccompBpf } = traits ?? {};
  if (typeof path !== "string" || typeof hideUnifiedCgroup !== "boolean") return undefined;
  if (typeof keeps !== "boolean" || typeof takesSeccompBpf !== "boolean") return undefined;
  return { runtime: { path, hideUnifiedCgroup }, traits: { keeps, takesSeccompBpf } };
}

/** The default profile as the kernel's program; from the notes when profile and libseccomp are the same. */
function compiledSeccomp(host: SpecHost, notes: MachineNotes | undefined): string | undefined {
  const profile: OciSeccomp = defaultSeccomp(host.architecture, host.kernel, DEFAULT_CAPABILITIES);
  const key = notes && JSON.stringify([libSeccompVersion() ?? "", profile]);
  const noted = key === undefined ? undefined : notes?.get(SECCOMP_NOTE, key);
  if (typeof noted === "string") return noted;
  const filter = compileSeccomp(profile)?.toString("base64");
  if (key !== undefined && filter !== undefined) notes?.set(SECCOMP_NOTE, key, filter);
  return filter;
}
