/** `--keys` and `--changed-since`: reads definitions of one or two sides and compares what they come to. */
import {
  type BakeFile,
  type BakeHost,
  type BakeOptions,
  type BakeOutcome,
  type BakePlan,
  readBake,
  readDefinition,
} from "@kiln/bake";
import { BuildError, errorMessage, isBuildError, isCanceled } from "@kiln/base";
import { matchPath } from "@kiln/patterns";
import type { CommandContext } from "../../command/command.ts";
import type { Question } from "../questions.ts";
import { compareKeys, type TargetChange } from "./compare-keys.ts";
import { DiskView } from "./file-view.ts";
import { printChanges, printKeys } from "./print-keys.ts";
import { openRevision, viewHost } from "./revision-view.ts";
import { type TargetKey, targetKeys } from "./target-key.ts";

/** What the answer is made of. */
export interface KeysQuestion {
  readonly question: Question & { readonly kind: "keys" | "changes" };
  readonly plan: BakePlan;
  readonly host: BakeHost;
  readonly options: BakeOptions;
  /** Reads the definition's files through a host. */
  readonly load: (host: BakeHost) => Promise<{ readonly files: readonly BakeFile[] }>;
  readonly warn: (message: string) => void;
  /** Where the definition was fetched from; "" for this machine. */
  readonly url: string;
}

/** The text to print. */
export async function answerKeys(ctx: CommandContext, asked: KeysQuestion): Promise<string> {
  const { question, plan, host } = asked;
  if (asked.url !== "")
    throw new BuildError("unimplemented", "keys of remote definitions aren't supported by kiln yet");
  if (question.kind === "changes" && ctx.flags.list("file").includes("-"))
    throw new BuildError("invalid_argument", "--changed-since can't be used with a definition from stdin");
  const disk = new DiskView();
  const base = { cwd: host.cwd, localPlatform: host.localPlatform, env: ctx.terminal.env };
  const keys = await targetKeys(plan.targets, { ...base, view: disk });
  for (const { name, note } of keys.values())
    if (note !== undefined) asked.warn(`target ${name}: all of its context counts: ${note}`);
  if (question.kind === "keys") return printKeys(keys, question.format);
  const git = { cwd: host.cwd, env: ctx.terminal.env, signal: ctx.signal };
  const { commit, view } = await openRevision(question.revision, git, disk);
  let changes: readonly TargetChange[];
  try {
    const before = await planOf(viewHost(host, view), asked);
    changes = compareKeys(keys, await targetKeys(before?.targets ?? [], { ...base, view }));
  } catch (error) {
    if (!isBuildError(error) || isCanceled(error)) throw error;
    changes = allChanged(keys, errorMessage(error));
  }
  return printChanges(changes, commit, question.format);
}

/** The revision can't be built, so that whatever can be built now is another thing. */
function allChanged(keys: ReadonlyMap<string, TargetKey>, message: string): TargetChange[] {
  return [...keys.values()].map(({ name, key }) => ({
    name,
    key,
    change: "changed",
    reasons: [{ kind: "before", message }],
  }));
}

/** What the revision has of the targets that were asked for; undefined when it has no definition. */
async function planOf(host: BakeHost, { load, options }: KeysQuestion): Promise<BakePlan | undefined> {
  const { files } = await load(host);
  if (files.length === 0) return undefined;
  const { targetNames, groupNames } = unwrap(readDefinition(files, host, options));
  const known = [...targetNames, ...groupNames];
  const given = options.targets ?? [];
  const wanted = (given.length === 0 ? ["default"] : given).filter((name) => {
    const plain = name.replaceAll(".", "_");
    return known.some((other) => other === plain || (/[*?[\]]/.test(plain) && matchPath(plain, other)));
  });
  return wanted.length === 0 ? undefined : unwrap(readBake(files, host, { ...options, targets: wanted }));
}

function unwrap<T>(outcome: BakeOutcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw new BuildError("invalid_argument", outcome.failure.message);
}
