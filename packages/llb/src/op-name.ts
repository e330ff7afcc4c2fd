import type { FileAction, Op, OpMetadata } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { CUSTOM_NAME } from "./metadata.ts";

/** Names grow with the graph when merges nest; longer ones are cut. */
const MAX_NAME_LENGTH = 64 * 1024;

/** What a vertex is called in the progress; `inputs` are the names of its inputs. */
export function opName(op: Op, metadata: OpMetadata | undefined, inputs: readonly string[]): string {
  const description = metadata?.description;
  if (description !== undefined && Object.hasOwn(description, CUSTOM_NAME)) return description[CUSTOM_NAME]!;
  const name = derivedName(op, inputs);
  return name.length > MAX_NAME_LENGTH ? `${name.slice(0, MAX_NAME_LENGTH)}…` : name;
}

function derivedName({ op }: Op, inputs: readonly string[]): string {
  switch (op.case) {
    case "source":
      return op.value.identifier;
    case "exec":
      return op.value.meta!.args.join(" ");
    case "file":
      return op.value.actions.flatMap(actionName).join(", ");
    case "build":
      return "build";
    case "merge":
      return `merge (${inputs.join(", ")})`;
    case "diff": {
      const lower = sideName(op.value.lower!.input, inputs);
      return `diff ${lower} -> ${sideName(op.value.upper!.input, inputs)}`;
    }
    case "passthrough":
      return `passthrough ${op.value.id}`;
    case undefined:
      return "unknown";
  }
}

function sideName(input: bigint, inputs: readonly string[]): string {
  if (input === -1n) return "scratch";
  const name = inputs[Number(input)];
  if (name === undefined) throw new BuildError("invalid_argument", `invalid diff input index ${input}`);
  return `(${name})`;
}

function actionName({ action }: FileAction): string[] {
  switch (action.case) {
    case "mkdir":
      return [`mkdir ${action.value.path}`];
    case "mkfile":
      return [`mkfile ${action.value.path}`];
    case "symlink":
      return [`symlink ${action.value.newpath} -> ${action.value.oldpath}`];
    case "rm":
      return [`rm ${action.value.path}`];
    case "copy":
      return [`copy ${action.value.src} ${action.value.dest}`];
    case undefined:
      return [];
  }
}
