import { createHash } from "node:crypto";
import { posix } from "node:path";
import { clone } from "@bufbuild/protobuf";
import {
  type ChownOpt,
  type FileAction,
  FileActionCopySchema,
  FileActionMkDirSchema,
  FileActionMkFileSchema,
  FileActionRmSchema,
  FileActionSymlinkSchema,
  type FileOp,
} from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type GoJson, goJsonText, goStruct } from "../../cache-digest/go-json.ts";
import { type ContentSelector, isFiltered, plainSelector } from "../../content-hash/content-key.ts";
import { hasWildcard } from "./run-action.ts";

/** What the cache map of a file op is made of. */
export interface FileCacheParts {
  readonly digest: string;
  /** Per input: what of its content counts; undefined when its own keys must do. */
  readonly deps: readonly { readonly selector: string; readonly selectors: ContentSelector[] }[];
}

const CACHE_TYPE = "buildkit.file.v0";

/**
 * The cache digest of a file op and the content selectors of its inputs, byte for byte as BuildKit makes
 * them (`solver/llbsolver/ops/file.go`): JSON of each action in base64; the source of a copy from another
 * input counts by its name alone, as its content is in the selectors. An input that actions write to is
 * never looked into.
 */
export function fileCacheParts(op: FileOp, inputCount: number): FileCacheParts {
  const selectors = new Map<number, ContentSelector[]>();
  const written = new Set<number>();
  const add = (input: number, selector: ContentSelector): void => {
    const list = selectors.get(input) ?? [];
    list.push(selector);
    selectors.set(input, list);
  };
  const actions: Uint8Array[] = [];
  const indexes: number[][] = [];
  for (const action of op.actions) {
    if (action.input !== -1n) written.add(Number(action.input));
    addOwnerSelectors(ownerOf(action), add);
    actions.push(Buffer.from(goJsonText(actionJson(action, inputCount, add))));
    indexes.push([Number(action.input), Number(action.secondaryInput), Number(action.output)]);
  }
  const text = goJsonText({
    Type: CACHE_TYPE,
    Actions: actions,
    indexes: isDefaultChain(indexes) || indexes.length === 0 ? undefined : indexes,
  });
  return {
    digest: `sha256:${createHash("sha256").update(text).digest("hex")}`,
    deps: depsOf(selectors, written, inputCount),
  };
}

function actionJson(
  { action, secondaryInput }: FileAction,
  inputCount: number,
  add: (input: number, selector: ContentSelector) => void,
): GoJson {
  switch (action.case) {
    case "mkdir":
      return goStruct(FileActionMkDirSchema, action.value);
    case "mkfile":
      return goStruct(FileActionMkFileSchema, action.value);
    case "symlink":
      return goStruct(FileActionSymlinkSchema, action.value);
    case "rm":
      return goStruct(FileActionRmSchema, action.value);
    case "copy": {
      if (secondaryInput === -1n || Number(secondaryInput) >= inputCount) {
        return goStruct(FileActionCopySchema, action.value);
      }
      const copy = clone(FileActionCopySchema, action.value);
      add(Number(secondaryInput), {
        path: copy.src,
        followLinks: copy.followSymlink,
        wildcard: copy.allowWildcard && hasWildcard(copy.src),
        includePatterns: copy.includePatterns,
        excludePatterns: copy.excludePatterns,
        requiredPaths: copy.requiredPaths,
      });
      copy.src = goBase(copy.src);
      return goStruct(FileActionCopySchema, copy);
    }
    case undefined:
      throw new BuildError("invalid_argument", "invalid file action without a kind");
  }
}

/** Go's `path.Base`. */
function goBase(path: string): string {
  if (path === "") return ".";
  const trimmed = path.replace(/\/+$/, "");
  return trimmed === "" ? "/" : posix.basename(trimmed);
}

/** The owner that an action sets, if any. */
export function ownerOf({ action }: FileAction): ChownOpt | undefined {
  return action.case === undefined || action.case === "rm" ? undefined : action.value.owner;
}

function addOwnerSelectors(
  owner: ChownOpt | undefined,
  add: (input: number, selector: ContentSelector) => void,
): void {
  for (const [who, file] of [
    [owner?.user, "/etc/passwd"],
    [owner?.group, "/etc/group"],
  ] as const) {
    if (who?.user.case !== "byName") continue;
    const { input } = who.user.value;
    if (input < 0n) throw new BuildError("invalid_argument", `invalid user index ${input}`);
    add(Number(input), plainSelector(file, true));
  }
}

function depsOf(
  selectors: ReadonlyMap<number, ContentSelector[]>,
  written: ReadonlySet<number>,
  inputCount: number,
): { selector: string; selectors: ContentSelector[] }[] {
  for (const input of selectors.keys()) {
    if (input < 0 || input >= inputCount) {
      throw new BuildError(
        "invalid_argument",
        `invalid input index ${input} in file op with ${inputCount} inputs`,
      );
    }
  }
  return Array.from({ length: inputCount }, (_, input) => {
    const list = selectors.get(input);
    if (list === undefined || written.has(input)) return { selector: "", selectors: [] };
    const paths = list.map((item) => Buffer.from(item.path)).sort((a, b) => Buffer.compare(b, a));
    const hash = createHash("sha256");
    for (const [at, path] of paths.entries()) {
      if (at > 0) hash.update("\0");
      hash.update(path);
    }
    return { selector: `sha256:${hash.digest("hex")}`, selectors: dedupe(list) };
  });
}

function dedupe(list: readonly ContentSelector[]): ContentSelector[] {
  const plain = (followLinks: boolean): string[] =>
    dedupePaths(list.filter((s) => !isFiltered(s) && s.followLinks === followLinks).map((s) => s.path));
  const out = [
    ...plain(false).map((path) => plainSelector(path)),
    ...plain(true).map((path) => plainSelector(path, true)),
    ...list.filter(isFiltered),
  ];
  return out.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
}

/** Paths without those that lie below another, in bytewise order. */
export function dedupePaths(paths: readonly string[]): string[] {
  const known = new Set(paths);
  const kept = [...known].filter((path) => {
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      for (const parent of [path.slice(0, at), path.slice(0, at + 1)]) {
        if (parent !== path && known.has(parent)) return false;
      }
    }
    return true;
  });
  return kept.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** The common shape, each action working on the one before, which old checksums had no indexes for. */
function isDefaultChain(indexes: readonly (readonly number[])[]): boolean {
  const last = indexes.length - 1;
  return indexes.every(
    ([input, secondary, output], at) =>
      input === (at === 0 ? 0 : indexes.length + at - 1) &&
      (secondary === -1 || secondary === 1) &&
      output === (at === last ? 0 : -1),
  );
}
