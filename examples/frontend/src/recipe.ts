import { type Node, type Problem, reader, type Section, type Text } from "./reader.ts";

/** A command that is run in the shell. */
export interface RunStep {
  readonly kind: "run";
  readonly script: Text;
  /** Directories that are kept between builds. */
  readonly caches: readonly Text[];
  /** Ids of secrets; each is a file below /run/secrets. */
  readonly secrets: readonly Text[];
  readonly network: Text | undefined;
  readonly insecure: boolean;
}

/** Files of the context, or of another image or context. */
export interface CopyStep {
  readonly kind: "copy";
  readonly sources: readonly Text[];
  readonly to: Text;
  readonly from: Text | undefined;
  readonly owner: Text | undefined;
}

/** A file whose text is in the recipe. */
export interface WriteStep {
  readonly kind: "write";
  readonly path: Text;
  readonly text: Text;
  readonly executable: boolean;
}

/** Packages of the distribution, whichever it is. */
export interface PackagesStep {
  readonly kind: "packages";
  readonly names: readonly Text[];
}

/** Every file of a directory of the context, run in order of the names, each a step of its own. */
export interface ScriptsStep {
  readonly kind: "scripts";
  readonly dir: Text;
}

export type Step = { readonly at: Node } & (RunStep | CopyStep | WriteStep | PackagesStep | ScriptsStep);

/** A build argument. */
export interface Argument {
  readonly name: string;
  /** Undefined: it has to be given. */
  readonly value: string | undefined;
  readonly description: string;
  readonly at: Node;
}

/** How the image runs. */
export interface ImageFields {
  readonly cmd: readonly Text[] | undefined;
  readonly entrypoint: readonly Text[] | undefined;
  readonly user: Text | undefined;
  readonly expose: readonly Text[];
  readonly labels: readonly (readonly [string, Text])[];
}

/** A recipe as written; `${NAME}` isn't replaced yet. */
export interface Recipe {
  readonly description: string;
  readonly from: Text | undefined;
  readonly args: readonly Argument[];
  readonly env: readonly (readonly [string, Text])[];
  readonly workdir: Text | undefined;
  readonly steps: readonly Step[];
  readonly image: ImageFields;
  /** Commands that must succeed in the finished image. */
  readonly tests: readonly Text[];
}

/** Reads a recipe and goes on after mistakes. Never throws for what is in the file. */
export function parseRecipe(text: string): { recipe: Recipe; problems: readonly Problem[] } {
  const { root, problems } = reader(text);
  const recipe: Recipe = {
    description: root.text("description")?.value ?? "",
    from: root.text("from"),
    args: root.section("args").entries().map(readArgument),
    env: readPairs(root.section("env")),
    workdir: root.text("workdir"),
    steps: root
      .sections("steps")
      .map(readStep)
      .filter((step) => step !== undefined),
    image: readImage(root.section("image")),
    tests: root.texts("test") ?? [],
  };
  if (recipe.from === undefined) root.problem("a recipe needs `from`, the image that it builds on");
  root.finish();
  return { recipe, problems };
}

function readArgument([name, value]: readonly [string, Section]): Argument {
  if (!value.isMap) {
    const text = value.scalar();
    return { name, value: text?.value, description: "", at: value.at };
  }
  const argument = {
    name,
    value: value.text("default")?.value,
    description: value.text("description")?.value ?? "",
    at: value.at,
  };
  value.finish();
  return argument;
}

function readPairs(section: Section): (readonly [string, Text])[] {
  return section.entries().flatMap(([key, value]) => {
    const text = value.scalar() ?? value.missing("a text");
    return text === undefined ? [] : [[key, text] as const];
  });
}

function readImage(section: Section): ImageFields {
  const image = {
    cmd: section.texts("cmd"),
    entrypoint: section.texts("entrypoint"),
    user: section.text("user"),
    expose: section.texts("expose") ?? [],
    labels: readPairs(section.section("labels")),
  };
  section.finish();
  return image;
}

const KINDS = ["run", "copy", "write", "packages", "scripts"] as const;

function readStep(section: Section): Step | undefined {
  const kinds = KINDS.filter((kind) => section.has(kind));
  const [kind] = kinds;
  if (kind === undefined || kinds.length > 1) {
    section.problem(`a step has one of ${KINDS.join(", ")}`);
    return undefined;
  }
  const step = readKind(section, kind);
  section.finish();
  return step && { at: section.at, ...step };
}

type StepFields = RunStep | CopyStep | WriteStep | PackagesStep | ScriptsStep;

function readKind(section: Section, kind: (typeof KINDS)[number]): StepFields | undefined {
  switch (kind) {
    case "run": {
      const script = section.text("run") ?? section.missing("a command");
      return (
        script && {
          kind,
          script,
          caches: section.texts("cache") ?? [],
          secrets: section.texts("secrets") ?? [],
          network: section.text("network"),
          insecure: section.flag("insecure"),
        }
      );
    }
    case "copy": {
      const sources = section.texts("copy") ?? [];
      const to = section.text("to") ?? section.missing("`to`, where the files go");
      return to && { kind, sources, to, from: section.text("from"), owner: section.text("owner") };
    }
    case "write": {
      const path = section.text("write") ?? section.missing("a path");
      const text = section.text("text") ?? section.missing("`text`, what is in the file");
      return path && text && { kind, path, text, executable: section.flag("executable") };
    }
    case "packages":
      return { kind, names: section.texts("packages") ?? [] };
    case "scripts": {
      const dir = section.text("scripts") ?? section.missing("a directory");
      return dir && { kind, dir };
    }
  }
}
