import { Cap } from "./caps.ts";
import { addInput } from "./exec.ts";
import { cleanPath, isAbsolute, joinPath } from "./go-path.ts";
import type { OpOptions } from "./metadata.ts";
import type { FileActionBody, OpInput, OwnerBody, TimestampNs, UserBody } from "./op.ts";
import type { State } from "./state.ts";
import { BuilderVertex, type Draft, inputOf, type MarshalOptions, type Output } from "./vertex.ts";

/** An owner: `user[:group]` with names or numbers, or two numbers. Names are looked up in the file system. */
export type Owner = string | { readonly uid: number; readonly gid: number };

/** One change of a file system. Relative paths start at the state's directory. */
export type FileAction = CopyAction | MkfileAction | MkdirAction | RmAction | SymlinkAction;

interface Stamped {
  readonly owner?: Owner | undefined;
  /** Modification time in nanoseconds since the epoch. */
  readonly timestamp?: bigint | undefined;
}

export interface CopyAction extends Stamped {
  readonly kind: "copy";
  readonly from: State;
  readonly src: string;
  /** A trailing slash (or `/.`) says that it is a directory. */
  readonly dest: string;
  /** Permission bits, or chmod's symbols (`u=rwX,go=rX`); by default the source's. */
  readonly mode?: number | string | undefined;
  readonly followSymlinks?: boolean | undefined;
  readonly contentsOnly?: boolean | undefined;
  readonly attemptUnpack?: boolean | undefined;
  readonly createDestPath?: boolean | undefined;
  readonly allowWildcard?: boolean | undefined;
  readonly allowEmptyWildcard?: boolean | undefined;
  readonly includePatterns?: readonly string[] | undefined;
  readonly excludePatterns?: readonly string[] | undefined;
  readonly requiredPaths?: readonly string[] | undefined;
  readonly alwaysReplaceExistingDestPaths?: boolean | undefined;
}

export interface MkfileAction extends Stamped {
  readonly kind: "mkfile";
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

export interface MkdirAction extends Stamped {
  readonly kind: "mkdir";
  readonly path: string;
  readonly mode: number;
  readonly parents?: boolean | undefined;
}

export interface RmAction {
  readonly kind: "rm";
  readonly path: string;
  readonly allowNotFound?: boolean | undefined;
  readonly allowWildcard?: boolean | undefined;
}

export interface SymlinkAction extends Stamped {
  readonly kind: "symlink";
  /** What the link says. */
  readonly target: string;
  /** Where the link is made. */
  readonly path: string;
}

/** A list of file actions, each on the result of the one before. */
export class FileVertex extends BuilderVertex {
  readonly #base: State;
  readonly #actions: readonly FileAction[];

  constructor(base: State, actions: readonly FileAction[], options: OpOptions) {
    super(options);
    this.#base = base;
    this.#actions = actions;
  }

  /** The last action's inputs first, as BuildKit's clients list them. */
  override inputs(): readonly Output[] {
    const seen = new Set<Output>();
    if (this.#base.output !== undefined) seen.add(this.#base.output);
    for (const action of this.#actions.toReversed()) {
      if (action.kind === "copy" && action.from.output !== undefined) seen.add(action.from.output);
    }
    return [...seen];
  }

  protected override draft(options: MarshalOptions): Draft {
    const inputs: OpInput[] = [];
    const base = indexOf(this.#base, inputs, options);
    const seconds = this.#actions.map((action) =>
      action.kind === "copy" ? indexOf(action.from, inputs, options) : -1,
    );
    const actions = this.#actions.map((action, i): FileActionBody => {
      const place = {
        input: i === 0 ? base : inputs.length + i - 1,
        secondaryInput: seconds[i]!,
        output: i === this.#actions.length - 1 ? 0 : -1,
      };
      return { ...place, ...actionBody(action, this.#base.dir, base) };
    });
    const caps: string[] = [Cap.fileBase];
    return { body: { kind: "file", actions }, inputs, caps, anyPlatform: true };
  }
}

function indexOf(state: State, inputs: OpInput[], options: MarshalOptions): number {
  if (state.output?.vertex() === undefined) return -1;
  return addInput(inputs, inputOf(state.output, options));
}

type Unplaced<T> = T extends unknown ? Omit<T, "input" | "secondaryInput" | "output"> : never;

function actionBody(action: FileAction, dir: string, base: number): Unplaced<FileActionBody> {
  switch (action.kind) {
    case "copy":
      return copyBody(action, dir, base);
    case "mkfile":
      return {
        kind: "mkfile",
        path: normalPath(dir, action.path, false),
        mode: action.mode & 0o777,
        data: action.data,
        ...stamp(action, base),
      };
    case "mkdir":
      return {
        kind: "mkdir",
        path: normalPath(dir, action.path, false),
        mode: action.mode & 0o777,
        makeParents: action.parents ?? false,
        ...stamp(action, base),
      };
    case "rm":
      return {
        kind: "rm",
        path: normalPath(dir, action.path, false),
        allowNotFound: action.allowNotFound ?? false,
        allowWildcard: action.allowWildcard ?? false,
      };
    case "symlink":
      return { kind: "symlink", oldPath: action.target, newPath: action.path, ...stamp(action, base) };
  }
}

function copyBody(action: CopyAction, dir: string, base: number): Unplaced<FileActionBody> {
  const src = cleanPath(action.src);
  const symbolic = typeof action.mode === "string" ? action.mode : "";
  return {
    kind: "copy",
    src: joinPath(isAbsolute(src) ? "/" : action.from.dir, src),
    dest: normalPath(dir, action.dest, true),
    mode: symbolic !== "" ? 0 : typeof action.mode === "number" ? action.mode : -1,
    modeStr: symbolic,
    followSymlink: action.followSymlinks ?? false,
    dirCopyContents: action.contentsOnly ?? false,
    attemptUnpack: action.attemptUnpack ?? false,
    createDestPath: action.createDestPath ?? false,
    allowWildcard: action.allowWildcard ?? false,
    allowEmptyWildcard: action.allowEmptyWildcard ?? false,
    includePatterns: action.includePatterns ?? [],
    excludePatterns: action.excludePatterns ?? [],
    requiredPaths: action.requiredPaths ?? [],
    alwaysReplaceExistingDestPaths: action.alwaysReplaceExistingDestPaths ?? false,
    ...stamp(action, base),
  };
}

function stamp(action: Stamped, base: number): { owner: OwnerBody | undefined; timestamp: TimestampNs } {
  const owner = action.owner === undefined ? undefined : ownerBody(action.owner, base);
  return { owner, timestamp: action.timestamp ?? -1 };
}

function ownerBody(owner: Owner, base: number): OwnerBody {
  if (typeof owner !== "string") {
    return { user: { kind: "id", id: owner.uid }, group: { kind: "id", id: owner.gid } };
  }
  const colon = owner.indexOf(":");
  const user = userBody(colon < 0 ? owner : owner.slice(0, colon), base);
  return colon < 0 ? { user } : { user, group: userBody(owner.slice(colon + 1), base) };
}

const MAX_INT32 = 2 ** 31;

function userBody(text: string, base: number): UserBody {
  const id = text === "root" ? 0 : /^[+-]?[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (id >= -MAX_INT32 && id < MAX_INT32) return { kind: "id", id };
  return text === "" ? { kind: "id", id: 0 } : { kind: "name", name: text, input: base };
}

function normalPath(dir: string, path: string, keepSlash: boolean): string {
  let clean = cleanPath(path);
  if (!isAbsolute(clean)) clean = joinPath("/", dir, clean);
  if (!keepSlash) return clean;
  if (path.endsWith("/") && !clean.endsWith("/")) return `${clean}/`;
  if (path.endsWith("/.")) return clean === "/" ? "/." : `${clean}/.`;
  return clean;
}
