/** What `kiln bake` can tell about a definition instead of building it. */
import type { EjectFormat } from "@kiln/bake";
import { type FlagSpec, type FlagValues, usageError } from "../command/flags.ts";

/** What one command is asked for; `build` when nothing else. */
export type Question =
  | { readonly kind: "build" | "print" | "graph" | "types" }
  | { readonly kind: "list"; readonly request: string }
  | { readonly kind: "eject"; readonly format: EjectFormat }
  | { readonly kind: "keys"; readonly format: AnswerFormat }
  | { readonly kind: "changes"; readonly revision: string; readonly format: AnswerFormat };

/** How keys and changes are written. */
export type AnswerFormat = "table" | "json";

/** A flag with its section of the reference page. */
export interface QuestionFlag extends FlagSpec {
  /** Paragraphs in Markdown. */
  readonly doc: string;
}

/** The flags that ask. Those that Buildx has, too, come first. */
export const questionFlags: readonly QuestionFlag[] = [
  {
    name: "print",
    kind: "bool",
    usage: "Print the options without building",
    doc: "Prints what the files come to, as JSON: groups, and targets with everything resolved.",
  },
  {
    name: "list",
    kind: "string",
    usage: "List targets or variables",
    doc: "`--list targets` or `--list variables`; `--list type=targets,format=json` for programs.",
  },
  {
    name: "eject",
    kind: "string",
    usage: 'Print the resolved definition in another language ("hcl", "json", "ts")',
    doc: "Prints what `--print` shows as a definition in HCL, JSON or TypeScript. Everything is resolved: nothing depends on variables, matrices or other files any more, and `--print` of the result is the same. `--set` and `--var` count.",
  },
  {
    name: "graph",
    kind: "bool",
    usage: "Draw groups, targets and what connects them, as SVG",
    doc: "Draws the chosen groups and targets as SVG: blue arrows are contexts that are other targets (`target:NAME`), dashed ones are what a target inherits, grey ones lead into groups. Dashed boxes are only inherited from.",
  },
  {
    name: "keys",
    kind: "string",
    bareValue: "table",
    typeName: "format",
    usage: 'Print a key of each target\'s content without building ("table", "json")',
    doc: `Prints a key for each target, made of everything that decides what a build gives: its attributes and arguments as far as the Dockerfile uses them, the steps of the Dockerfile, the files of the contexts that these steps can read (\`.dockerignore\` applied), linked targets' keys, platforms (this machine's where none is named) and base images. Equal keys mean equal builds, with the limits below; nothing is run, and no network is needed.

Not part of a key: tags, outputs, caches, \`pull\`, \`no-cache\`, values of secrets, times, owners and permissions of files (except whether they may be executed), empty directories, comments in the Dockerfile. Base images, remote contexts and \`ADD\` addresses count by name: pin digests, commits or checksums for keys that see a moved tag. Nothing is known of what a base image holds, so variables that only its \`ENV\` sets make the whole context count, and files that its \`ONBUILD\` triggers copy don't. Dockerfiles with a frontend other than \`docker/dockerfile\` count as text, together with the whole context.`,
  },
  {
    name: "changed-since",
    kind: "string",
    typeName: "revision",
    usage: "Tell which targets would change since a git revision, and why, without building",
    doc: `Compares the keys of the working tree with those of a git revision, and prints the targets that would give something else, with the reasons: files, arguments, the Dockerfile, base images, other targets. Tags and outputs are compared, too. Add \`--keys=json\` for JSON. The exit code is 0 either way.

Nothing is checked out. Files that git ignores count as unchanged, other untracked files as new. Definitions of both sides are evaluated with the same variables, so that a tag made of a commit doesn't count as a change; files that a typed definition reads by permission are those of the working tree on both sides. For what a branch changed, use \`--changed-since "$(git merge-base main HEAD)"\`.`,
  },
  {
    name: "types",
    kind: "bool",
    usage: "Print TypeScript declarations for editors of kiln.bake.ts",
    doc: 'Prints the declarations of the module `@kiln/bake`: `kiln bake --types > kiln-bake.d.ts`, and `/// <reference path="./kiln-bake.d.ts" />` as the first line of `kiln.bake.ts`.',
  },
];

const EJECT_FORMATS: readonly EjectFormat[] = ["hcl", "json", "ts"];
const ANSWER_FORMATS: readonly AnswerFormat[] = ["table", "json"];

/** Finds out what is asked for. @throws BuildError for two questions at once, and unknown formats. */
export function questionOf(flags: FlagValues): Question {
  const given: [flag: string, question: () => Question][] = [];
  if (flags.bool("print")) given.push(["print", () => ({ kind: "print" })]);
  const request = listRequest(flags);
  if (request !== "") given.push(["list", () => ({ kind: "list", request })]);
  if (flags.changed("eject")) {
    given.push(["eject", () => ({ kind: "eject", format: oneOf("eject", flags, EJECT_FORMATS) })]);
  }
  if (flags.bool("graph")) given.push(["graph", () => ({ kind: "graph" })]);
  if (flags.changed("changed-since")) {
    const format = flags.changed("keys") ? oneOf("keys", flags, ANSWER_FORMATS) : "table";
    given.push([
      "changed-since",
      () => ({ kind: "changes", revision: flags.string("changed-since"), format }),
    ]);
  } else if (flags.changed("keys")) {
    given.push(["keys", () => ({ kind: "keys", format: oneOf("keys", flags, ANSWER_FORMATS) })]);
  }
  if (flags.bool("types")) given.push(["types", () => ({ kind: "types" })]);
  const [first, second] = given;
  if (first === undefined) return { kind: "build" };
  if (second !== undefined) throw usageError(`--${first[0]} and --${second[0]} are mutually exclusive`);
  return first[1]();
}

function listRequest(flags: FlagValues): string {
  if (flags.bool("list-targets")) return "targets";
  if (flags.bool("list-variables")) return "variables";
  return flags.string("list");
}

function oneOf<T extends string>(name: string, flags: FlagValues, values: readonly T[]): T {
  const text = flags.string(name);
  const found = values.find((value) => value === text);
  if (found !== undefined) return found;
  throw usageError(`invalid ${name} format ${JSON.stringify(text)}, expected ${values.join(", ")}`);
}
