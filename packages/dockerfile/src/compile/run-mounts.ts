import { quoteGo } from "@kiln/formats";
import {
  basePath,
  Cap,
  cleanPath,
  isAbsolute,
  joinPath,
  type Mount,
  type SecretMount,
  type SshMount,
  type State,
  scratch,
} from "@kiln/llb";
import { isOsAbsolute, toSlash } from "../base/os-path.ts";
import { Problem } from "../base/problem.ts";
import type { RunMount } from "../instructions/types.ts";
import type { StepContext } from "./context.ts";
import type { RunStep } from "./run.ts";
import type { StageState } from "./stage-state.ts";

/** What a RUN mounts. */
export interface RunAccess {
  readonly mounts: readonly Mount[];
  readonly secrets: readonly SecretMount[];
  readonly ssh: readonly SshMount[];
}

/** Compiles the `--mount` flags of a RUN. */
export function runMounts(context: StepContext, state: StageState, step: RunStep): RunAccess {
  const mounts: Mount[] = [];
  const secrets: SecretMount[] = [];
  const ssh: SshMount[] = [];
  step.run.mounts.forEach((mount, i) => {
    const source = mount.from !== "" || mount.type === "cache" ? step.sources[i]! : undefined;
    if (source !== undefined && !source.isDispatched) {
      throw new Problem(
        `cannot mount from stage ${quoteGo(mount.from || "scratch")} to ${quoteGo(mount.target)}, stage needs to be defined before current command`,
      );
    }
    if (mount.type === "secret") secrets.push(secretMount(state, mount, step));
    else if (mount.type === "ssh") ssh.push(sshMount(state, mount, step));
    else {
      mounts.push(fileMount(context, state, { mount, source }));
      const path = joinPath("/", mount.source);
      if (source === undefined) state.contextPaths.add(path);
      else source.paths.add(path);
    }
  });
  return { mounts, secrets, ssh };
}

function fileMount(
  context: StepContext,
  state: StageState,
  { mount, source }: { mount: RunMount; source: StageState | undefined },
): Mount {
  let target = mount.target;
  if (!isAbsolute(cleanPath(target))) target = joinPath("/", state.state.dir, target);
  if (target === "/") throw new Problem(`invalid mount target ${quoteGo(target)}`);
  let files: State = source === undefined ? context.buildContext : source.state;
  if (mount.type === "tmpfs") files = scratch();
  const inner = joinPath("/", mount.source);
  let selector = inner === "/" ? undefined : inner;
  if (selector === undefined && (mount.uid ?? mount.gid ?? mount.mode) !== undefined) {
    files = cacheDirectory(files, mount);
    selector = "/cache";
  }
  const isKept = mount.type === "bind" && !mount.readonly;
  const id = mount.id === "" ? cleanPath(mount.target) : mount.id;
  return {
    target,
    source: files,
    selector,
    readonly: mount.readonly,
    noOutput: isKept && context.host.llbCaps.has(Cap.execMountBindReadWriteNoOutput),
    tmpfs: mount.type === "tmpfs" ? { size: mount.sizeBytes } : undefined,
    cache:
      mount.type === "cache"
        ? { id: `${context.settings.cacheNamespace}/${id}`, sharing: mount.sharing || "shared" }
        : undefined,
  };
}

/** The first content of a cache whose owner or mode is given. */
function cacheDirectory(files: State, mount: RunMount): State {
  const owner = { uid: mount.uid ?? 0, gid: mount.gid ?? 0 };
  return files.file(
    { kind: "mkdir", path: "/cache", mode: mount.mode ?? 0o755, owner },
    { name: "[internal] setting cache mount permissions" },
  );
}

function ownerOf(mount: RunMount): {
  uid?: number | undefined;
  gid?: number | undefined;
  mode?: number | undefined;
} {
  return { uid: mount.uid, gid: mount.gid, mode: mount.mode };
}

function secretMount(state: StageState, mount: RunMount, step: RunStep): SecretMount {
  const isWindows = state.platform?.os === "windows";
  const path = isWindows ? toSlash(mount.target, "windows") : mount.target;
  let id = mount.source === "" ? mount.id : mount.source;
  if (id === "") {
    if (path === "") throw new Problem("one of source, target required");
    id = basePath(path);
  }
  const advice = `--mount=type=secret,id=${id},target=C:/path/to/secret`;
  if (isWindows && path !== "" && !isOsAbsolute(path, "windows")) {
    throw new Problem(
      `secret target ${quoteGo(path)} must be an absolute path with forward slashes on Windows, e.g. ${advice}`,
    );
  }
  let target: string | undefined = path === "" ? undefined : path;
  if (mount.env === undefined && target === undefined) {
    if (isWindows) throw new Problem(`secret target is required on Windows, e.g. ${advice}`);
    target = `/run/secrets/${basePath(id)}`;
  }
  if (!state.notes.secrets.has(id)) {
    state.notes.secrets.set(id, { required: mount.required, location: step.run.location });
  }
  return { id, target, env: mount.env, optional: !mount.required, ...ownerOf(mount) };
}

function sshMount(state: StageState, mount: RunMount, step: RunStep): SshMount {
  if (mount.source !== "") throw new Problem("ssh does not support source");
  const id = mount.id === "" ? "default" : mount.id;
  if (!state.notes.ssh.has(id)) {
    state.notes.ssh.set(id, { required: mount.required, location: step.run.location });
  }
  return { id: mount.id, target: mount.target, optional: !mount.required, ...ownerOf(mount) };
}
