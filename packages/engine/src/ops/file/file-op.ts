import type { FileAction, FileOp } from "@kiln/api/pb";
import { BuildError, unreachable } from "@kiln/base";
import type { CacheMapAnswer } from "@kiln/solver";
import type { ImmutableRef, MutableRef, RefManager } from "@kiln/store";
import { localMount } from "@kiln/sys";
import type { ContentHasher } from "../../content-hash/content-hasher.ts";
import { contentKeyOf } from "../../content-hash/content-key.ts";
import type { LlbOp, Op, OpContext, OpResult } from "../../op-context.ts";
import { OpFailure } from "../op-failure.ts";
import type { PlainAction } from "./file-action.ts";
import { fileCacheParts, ownerOf } from "./file-cache-map.ts";
import type { FileRunner } from "./file-runner.ts";
import { resolveOwner } from "./owner.ts";

/** What file ops need of a worker. */
export interface FileOpHost {
  readonly refs: RefManager;
  readonly hasher: ContentHasher;
  readonly fileRunner: FileRunner;
  acquire(ctx: OpContext): Promise<() => void>;
}

/**
 * Copies, makes and removes files: LLB's `FileOp`.
 *
 * Actions form a small graph of their own: the result of action i has the index `inputs + i`. A result
 * that more than one action or an output uses is committed; one that only the next action writes to
 * passes on as it is.
 */
export class FileOperation implements Op {
  readonly #op: FileOp;
  readonly #inputCount: number;
  readonly #name: string;
  readonly #host: FileOpHost;

  /** @throws BuildError `invalid_argument` for an op without actions. */
  constructor(op: FileOp, opts: { inputCount: number; name: string; host: FileOpHost }) {
    if (op.actions.length === 0) throw new BuildError("invalid_argument", "invalid file op with no actions");
    this.#op = op;
    this.#inputCount = opts.inputCount;
    this.#name = opts.name;
    this.#host = opts.host;
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const parts = fileCacheParts(this.#op, this.#inputCount);
    const { hasher } = this.#host;
    const deps = parts.deps.map((dep) => ({
      selector: dep.selector,
      preprocess: (input: OpResult, ctx: OpContext) => unlazy(input, ctx),
      ...(dep.selectors.length === 0
        ? {}
        : {
            computeContentKey: (input: OpResult, ctx: OpContext) =>
              contentKeyOf(hasher, input, dep.selectors, ctx),
          }),
    }));
    return { cacheMap: { digest: parts.digest, deps }, done: true };
  }

  acquire(ctx: OpContext): Promise<() => void> {
    return this.#host.acquire(ctx);
  }

  async exec(inputs: readonly OpResult[], ctx: OpContext): Promise<readonly OpResult[]> {
    await using run = new FileRun(this.#op.actions, inputs, { host: this.#host, name: this.#name, ctx });
    return await run.outputs();
  }
}

/** Makes sure that a lazy input is on disk. */
export async function unlazy(input: OpResult, ctx: OpContext): Promise<void> {
  await input.ref?.extract({
    signal: ctx.signal,
    session: ctx.sessions,
  });
}

/** A tree in the middle of a run: finished, or being written by one action after the other. */
type Tree =
  | { readonly kind: "fixed"; readonly ref: ImmutableRef | undefined; readonly owned: boolean }
  | { readonly kind: "open"; readonly ref: MutableRef };

/** One execution of a file op's actions. Disposing gives back every tree that wasn't handed out. */
class FileRun implements AsyncDisposable {
  readonly #actions: readonly FileAction[];
  readonly #inputs: readonly OpResult[];
  readonly #host: FileOpHost;
  readonly #name: string;
  readonly #ctx: OpContext;
  readonly #trees = new Map<number, Promise<Tree>>();
  readonly #uses = new Map<number, number>();
  readonly #outputs = new Map<number, number>();

  constructor(
    actions: readonly FileAction[],
    inputs: readonly OpResult[],
    opts: { host: FileOpHost; name: string; ctx: OpContext },
  ) {
    this.#actions = actions;
    this.#inputs = inputs;
    this.#host = opts.host;
    this.#name = opts.name === "" ? "fileop target" : opts.name;
    this.#ctx = opts.ctx;
    this.#check();
  }

  async outputs(): Promise<OpResult[]> {
    const wanted = [...this.#outputs.entries()].sort(([a], [b]) => a - b).map(([, index]) => index);
    const trees = await Promise.allSettled(wanted.map((index) => this.#tree(index)));
    const failed = trees.find((tree) => tree.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return trees.map((tree) => {
      const value = (tree as PromiseFulfilledResult<Tree>).value;
      return { ref: value.kind === "fixed" ? value.ref?.clone() : undefined };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const tree of await Promise.allSettled(this.#trees.values())) {
      if (tree.status === "rejected") continue;
      if (tree.value.kind === "open" || tree.value.owned) await tree.value.ref?.release();
    }
  }

  #check(): void {
    const count = this.#inputs.length;
    const total = count + this.#actions.length;
    for (const [at, action] of this.#actions.entries()) {
      const input = Number(action.input);
      const secondary = Number(action.secondaryInput);
      if (input < -1 || input >= total) throw invalid(`invalid input index ${input}, ${total} provided`);
      if (secondary < -1 || secondary >= total) {
        throw invalid(`invalid secondary input index ${secondary}, ${total} provided`);
      }
      const owner = ownerOf(action);
      for (const who of [owner?.user?.user, owner?.group?.user]) {
        if (who?.case !== "byName") continue;
        const index = Number(who.value.input);
        if (index < 0 || index >= total) throw invalid(`invalid user index: ${index}`);
        this.#use(index);
      }
      this.#use(input);
      this.#use(secondary);
      const output = Number(action.output);
      if (output === -1) continue;
      if (this.#outputs.has(output)) throw invalid(`duplicate output ${output}`);
      this.#outputs.set(output, count + at);
      this.#use(count + at);
    }
    if (this.#outputs.size === 0) throw invalid("no outputs specified");
    for (let i = 0; i < this.#outputs.size; i++) {
      if (!this.#outputs.has(i)) throw invalid(`missing output index ${i}`);
    }
    for (const index of this.#outputs.values()) this.#checkLoop(index, new Set());
  }

  #use(index: number): void {
    this.#uses.set(index, (this.#uses.get(index) ?? 0) + 1);
  }

  #checkLoop(index: number, above: Set<number>): void {
    if (index < this.#inputs.length) return;
    if (above.has(index)) throw invalid(`loop from index ${index}`);
    above.add(index);
    for (const next of this.#sourcesOf(index)) this.#checkLoop(next, above);
    above.delete(index);
  }

  #sourcesOf(index: number): number[] {
    const action = this.#actions[index - this.#inputs.length] as FileAction;
    const owner = ownerOf(action);
    const named = [owner?.user?.user, owner?.group?.user].flatMap((who) =>
      who?.case === "byName" ? [Number(who.value.input)] : [],
    );
    return [Number(action.input), Number(action.secondaryInput), ...named];
  }

  #tree(index: number): Promise<Tree> {
    let tree = this.#trees.get(index);
    if (tree === undefined) {
      tree =
        index < this.#inputs.length
          ? Promise.resolve<Tree>({ kind: "fixed", ref: this.#inputs[index]?.ref, owned: false })
          : this.#runAction(index);
      this.#trees.set(index, tree);
    }
    return tree;
  }

  async #runAction(index: number): Promise<Tree> {
    const action = this.#actions[index - this.#inputs.length] as FileAction;
    const target = await this.#writable(Number(action.input));
    try {
      await this.#perform(action, target);
    } catch (error) {
      throw await this.#failure(error, index, target);
    }
    const passesOn = (this.#uses.get(index) ?? 0) === 1 && ![...this.#outputs.values()].includes(index);
    if (passesOn && this.#isWrittenNext(index)) return { kind: "open", ref: target };
    return { kind: "fixed", ref: await target.commit(), owned: true };
  }

  /** True when the only use of a result is to be written to by another action. */
  #isWrittenNext(index: number): boolean {
    return this.#actions.some((action) => Number(action.input) === index);
  }

  /** A tree to write to, over what `index` stands for (-1: over nothing). The caller owns it. */
  async #writable(index: number): Promise<MutableRef> {
    const base = index === -1 ? undefined : await this.#tree(index);
    if (base?.kind === "open") {
      // this action is its only user and takes it over
      this.#trees.delete(index);
      return base.ref;
    }
    return await this.#host.refs.newMutable(base?.ref, {
      description: this.#name,
      ctx: { signal: this.#ctx.signal, session: this.#ctx.sessions },
    });
  }

  async #perform(action: FileAction, target: MutableRef): Promise<void> {
    const refCtx = { signal: this.#ctx.signal, session: this.#ctx.sessions };
    await using mounts = new AsyncDisposableStack();
    const mounted = async (ref: ImmutableRef | MutableRef, readonly: boolean): Promise<string> => {
      const mountable = await ref.mount(readonly, refCtx);
      mounts.use(mountable);
      return mounts.use(localMount(mountable.mounts)).path;
    };
    const readRoot = async (index: number): Promise<string | undefined> => {
      const tree = await this.#tree(index);
      return tree.ref === undefined ? undefined : await mounted(tree.ref, true);
    };
    const owner = await resolveOwner(ownerOf(action), readRoot);
    const secondary = Number(action.secondaryInput);
    let source: string | undefined;
    if (action.action.case === "copy") {
      source = secondary === -1 ? undefined : await readRoot(secondary);
      source ??= await mounted(mounts.use(await this.#scratch()), true);
    }
    const root = await mounted(target, false);
    await this.#host.fileRunner.run(plainAction(action, { root, source: source ?? "", owner }));
  }

  #scratch(): Promise<MutableRef> {
    return this.#host.refs.newMutable(undefined, { description: this.#name });
  }

  async #failure(error: unknown, index: number, target: MutableRef): Promise<OpFailure> {
    const at = index - this.#inputs.length;
    const mounts: (OpResult | undefined)[] = new Array(this.#actions.length).fill(undefined);
    mounts[at] = { ref: await target.commit() };
    const action = this.#actions[at] as FileAction;
    const secondary = Number(action.secondaryInput) - this.#inputs.length;
    const other = secondary >= 0 ? await this.#trees.get(Number(action.secondaryInput)) : undefined;
    if (other?.kind === "fixed" && other.ref !== undefined) mounts[secondary] = { ref: other.ref.clone() };
    const inputs = this.#inputs.map((input) => ({ ref: input.ref?.clone() }));
    const failure = new OpFailure(error, { inputs, mounts, fileAction: at });
    this.#ctx.cleanup(() => failure.release());
    return failure;
  }
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}

function plainAction(
  { action }: FileAction,
  at: {
    readonly root: string;
    readonly source: string;
    readonly owner: { uid: number; gid: number } | undefined;
  },
): PlainAction {
  const { root, source, owner } = at;
  const timeNs = (value: bigint): bigint | undefined => (value === -1n ? undefined : value);
  switch (action.case) {
    case "mkdir": {
      const { path, mode, makeParents, timestamp } = action.value;
      return { kind: "mkdir", root, path, mode, makeParents, owner, timeNs: timeNs(timestamp) };
    }
    case "mkfile": {
      const { path, mode, data, timestamp } = action.value;
      return { kind: "mkfile", root, path, mode, data, owner, timeNs: timeNs(timestamp) };
    }
    case "symlink": {
      const { oldpath, newpath, timestamp } = action.value;
      return { kind: "symlink", root, oldpath, newpath, owner, timeNs: timeNs(timestamp) };
    }
    case "rm": {
      const { path, allowNotFound, allowWildcard } = action.value;
      return { kind: "rm", root, path, allowNotFound, allowWildcard };
    }
    case "copy": {
      const copy = action.value;
      return {
        kind: "copy",
        root,
        source,
        owner,
        src: copy.src,
        dest: copy.dest,
        mode: copy.mode,
        modeStr: copy.modeStr,
        followSymlink: copy.followSymlink,
        dirCopyContents: copy.dirCopyContents,
        attemptUnpack: copy.attemptUnpackDockerCompatibility,
        createDestPath: copy.createDestPath,
        allowWildcard: copy.allowWildcard,
        allowEmptyWildcard: copy.allowEmptyWildcard,
        includePatterns: copy.includePatterns,
        excludePatterns: copy.excludePatterns,
        alwaysReplace: copy.alwaysReplaceExistingDestPaths,
        timeNs: timeNs(copy.timestamp),
      };
    }
    case undefined:
      throw invalid("invalid file action without a kind");
    default:
      return unreachable(action, "file action");
  }
}
