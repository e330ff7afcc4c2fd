import { type Mount as LlbMount, MountType } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { ExecMount } from "@kiln/executor";
import type { SessionGroup } from "@kiln/solver";
import type { ImmutableRef, MutableRef, RefManager } from "@kiln/store";
import type { Mount } from "@kiln/sys";
import { type CacheMounts, type CacheMountUse, cacheMountDescription } from "./cache-mounts.ts";

/** A path that leads to a client's service as long as it isn't disposed of. */
export interface ForwardedSocket extends AsyncDisposable {
  readonly path: string;
}

/** What steps ask of the clients behind a build. */
export interface StepClients {
  /** @throws BuildError `not_found` (`secret X: not found`) when no client has it. */
  secret(id: string, sessions: SessionGroup, signal: AbortSignal): Promise<Uint8Array>;
  /**
   * Makes a socket that leads to a client's SSH agent; undefined when no client has it and it is optional.
   *
   * @throws BuildError `no SSH key "id" forwarded from the client`
   */
  sshSocket(
    request: {
      readonly id: string;
      readonly uid: number;
      readonly gid: number;
      readonly mode: number;
      readonly optional: boolean;
    },
    sessions: SessionGroup,
    signal: AbortSignal,
  ): Promise<ForwardedSocket | undefined>;
}

/** What mounts are prepared with. */
export interface MountsHost {
  readonly refs: RefManager;
  readonly cacheMounts: CacheMounts;
  readonly clients: StepClients;
}

/** For whom mounts are prepared. */
export interface MountsOwner {
  readonly sessions: SessionGroup;
  readonly signal: AbortSignal;
  /** Where relative destinations start. */
  readonly cwd: string;
  /** Whose cache mounts they are, for their descriptions: `exec npm install`. */
  readonly name: string;
  /** Description of a tree that is written to. */
  describe(mount: LlbMount): string;
}

/** A tree that a mount's output is, or becomes when it is committed. */
export interface OutputRef {
  readonly mountIndex: number;
  readonly ref: ImmutableRef | MutableRef;
}

const ROOT = "/";
const TYPE_NAMES = ["BIND", "SECRET", "SSH", "CACHE", "TMPFS"];
const EMPTY = -1n;
const SKIP_OUTPUT = -1n;

/**
 * The mounts of a container on their way from LLB to the executor; BuildKit's `PrepareMounts`, for steps and
 * for the containers of a gateway. After {@link PreparedMounts.prepare}, also one that failed, the owner takes
 * what it needs and disposes of the rest.
 *
 * - A bind mount with an output gets a writable tree over its input; a read-only one (not the root) whose
 *   output is its input.
 * - A writable bind mount without output, and a read-only root without one, get a tree to throw away.
 */
export class PreparedMounts implements AsyncDisposable {
  readonly outputs: OutputRef[] = [];
  /** Trees that nobody gets if all goes well; of interest to who looks into a failure. */
  readonly scratch: { readonly mountIndex: number; readonly ref: MutableRef }[] = [];
  readonly mounts: ExecMount[] = [];
  /** The file systems of mounts that show a tree, by the mount's index. */
  readonly treeMounts = new Map<number, readonly Mount[]>();
  rootfs: readonly Mount[] = [];
  readonlyRootfs = false;
  readonly #host: MountsHost;
  readonly #owner: MountsOwner;
  readonly #inputs: readonly (ImmutableRef | undefined)[];
  readonly #held = new AsyncDisposableStack();
  readonly #caches = new Map<string, CacheMountUse>();

  constructor(host: MountsHost, owner: MountsOwner, inputs: readonly (ImmutableRef | undefined)[]) {
    this.#host = host;
    this.#owner = owner;
    this.#inputs = inputs;
  }

  /** @throws BuildError `invalid_argument` for mounts that make no sense. */
  async prepare(mounts: readonly LlbMount[]): Promise<void> {
    for (const [index, mount] of mounts.entries()) await this.#one(mount, index);
    // Parents first, by bytes as Go compares.
    this.mounts.sort((a, b) => Buffer.compare(Buffer.from(a.dest), Buffer.from(b.dest)));
  }

  async #one(mount: LlbMount, index: number): Promise<void> {
    if (mount.dest === ROOT && mount.mountType !== MountType.BIND) {
      throw invalid(`invalid mount type ${TYPE_NAMES[mount.mountType]} for ${mount.dest}`);
    }
    const input = this.#inputOf(mount);
    switch (mount.mountType) {
      case MountType.BIND:
        return await this.#bind(mount, index, input);
      case MountType.CACHE:
        return await this.#cache(mount, index, input);
      case MountType.TMPFS:
        this.mounts.push({ ...this.#place(mount), kind: "tmpfs", sizeBytes: mount.TmpfsOpt?.size ?? 0n });
        return;
      case MountType.SECRET:
        return await this.#secret(mount);
      case MountType.SSH:
        return await this.#ssh(mount);
      default:
        throw invalid(`mount type ${String(mount.mountType)} not implemented`);
    }
  }

  #inputOf(mount: LlbMount): ImmutableRef | undefined {
    if (mount.input === EMPTY) return undefined;
    if (mount.input < 0n || mount.input >= BigInt(this.#inputs.length)) {
      throw invalid(`missing input ${mount.input}`);
    }
    return this.#inputs[Number(mount.input)];
  }

  #place(mount: LlbMount): { dest: string; readonly: boolean } {
    const dest = mount.dest.startsWith("/") ? mount.dest : `${this.#owner.cwd}/${mount.dest}`;
    return { dest: cleanAbsolute(dest), readonly: mount.readonly };
  }

  async #bind(mount: LlbMount, index: number, input: ImmutableRef | undefined): Promise<void> {
    const isRoot = mount.dest === ROOT;
    let shown: ImmutableRef | MutableRef | undefined = input;
    if (mount.output !== SKIP_OUTPUT) {
      const passesThrough = mount.readonly && input !== undefined && !isRoot;
      const ref = passesThrough ? input.clone() : await this.#newTree(mount, input);
      this.outputs.push({ mountIndex: index, ref });
      shown = ref;
    } else if (!mount.readonly || input === undefined || isRoot) {
      const ref = await this.#newTree(mount, input);
      this.scratch.push({ mountIndex: index, ref });
      shown = ref;
    }
    if (shown === undefined) throw invalid(`mount ${mount.dest} has no input`);
    // Even a read-only root is written to while mount points are made in it.
    const mounts = await this.#mount(shown, isRoot ? false : mount.readonly);
    this.treeMounts.set(index, mounts);
    if (isRoot) {
      this.readonlyRootfs = mount.readonly;
      this.rootfs = mounts;
      return;
    }
    this.mounts.push({ ...this.#place(mount), kind: "snapshot", mounts, selector: mount.selector });
  }

  #newTree(mount: LlbMount, input: ImmutableRef | undefined): Promise<MutableRef> {
    const { signal, sessions } = this.#owner;
    const description = this.#owner.describe(mount);
    return this.#host.refs.newMutable(input, { description, ctx: { signal, session: sessions } });
  }

  async #mount(ref: ImmutableRef | MutableRef, readonly: boolean): Promise<readonly Mount[]> {
    const { signal, sessions } = this.#owner;
    const mountable = await ref.mount(ref.kind === "immutable" || readonly, { signal, session: sessions });
    this.#held.use(mountable);
    return mountable.mounts;
  }

  async #cache(mount: LlbMount, index: number, input: ImmutableRef | undefined): Promise<void> {
    if (mount.cacheOpt === undefined) throw invalid("missing cache mount options");
    const { ID: id, sharing } = mount.cacheOpt;
    const key = input === undefined ? id : `${id}:${input.id}`;
    let use = this.#caches.get(key);
    if (use === undefined) {
      const { signal, sessions, name } = this.#owner;
      const description = cacheMountDescription(mount.dest, id, name);
      const ctx = { signal, session: sessions };
      use = await this.#host.cacheMounts.acquire({ id, base: input, sharing, description, ctx });
      this.#caches.set(key, use);
      this.#held.defer(use.release);
    }
    if (mount.output !== SKIP_OUTPUT && input !== undefined) {
      this.outputs.push({ mountIndex: index, ref: input.clone() });
    }
    const mounts = await this.#mount(use.ref, mount.readonly);
    this.treeMounts.set(index, mounts);
    this.mounts.push({ ...this.#place(mount), kind: "snapshot", mounts, selector: mount.selector });
  }

  async #secret(mount: LlbMount): Promise<void> {
    const options = mount.secretOpt;
    if (options === undefined) throw invalid("invalid secret mount options");
    if (options.ID === "") throw invalid("secret ID missing from mount options");
    const { sessions, signal } = this.#owner;
    const data = await optionalSecret(this.#host.clients, options, { sessions, signal });
    if (data === undefined) return;
    const { uid, gid, mode } = options;
    this.mounts.push({ ...this.#place(mount), kind: "file", data, uid, gid, mode: mode & 0o777 });
  }

  async #ssh(mount: LlbMount): Promise<void> {
    const options = mount.SSHOpt;
    if (options === undefined) throw invalid("invalid SSH mount options");
    const { ID: id, uid, gid, mode, optional } = options;
    const { sessions, signal } = this.#owner;
    const request = { id, uid, gid, mode: mode & 0o777, optional };
    const socket = await this.#host.clients.sshSocket(request, sessions, signal);
    if (socket === undefined) return;
    this.#held.use(socket);
    this.mounts.push({ ...this.#place(mount), kind: "host", source: socket.path });
  }

  /** Takes the trees out, for their new owner; disposing then leaves them alone. Call after the container has ended. */
  takeTrees(): { outputs: OutputRef[]; scratch: { mountIndex: number; ref: MutableRef }[] } {
    return { outputs: this.outputs.splice(0), scratch: this.scratch.splice(0) };
  }

  /** Unmounts, closes sockets and gives cache mounts back; idempotent. Needed before trees are committed. */
  async releaseMounts(): Promise<void> {
    await this.#held.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.releaseMounts();
    const { outputs, scratch } = this.takeTrees();
    for (const { ref } of [...outputs, ...scratch].reverse()) await ref.release();
  }
}

/** A secret; undefined when no client has it and it is optional. */
export async function optionalSecret(
  clients: StepClients,
  wanted: { readonly ID: string; readonly optional: boolean },
  by: { readonly sessions: SessionGroup; readonly signal: AbortSignal },
): Promise<Uint8Array | undefined> {
  try {
    return await clients.secret(wanted.ID, by.sessions, by.signal);
  } catch (error) {
    if (wanted.optional && error instanceof BuildError && error.code === "not_found") return undefined;
    throw error;
  }
}

function cleanAbsolute(path: string): string {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name === "..") names.pop();
    else names.push(name);
  }
  return `/${names.join("/")}`;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
