import type { FileAction, Op } from "@kiln/api/pb";
import { BuildError, redactUrls } from "@kiln/base";

const CUSTOM_NAME = "llb.customname";

/**
 * Name of a vertex: the one it was given, or one made from its op, without passwords of addresses. `nameOf` gives
 * that of an input.
 */
export function vertexName(
  op: Op,
  description: Readonly<Record<string, string>>,
  nameOf: (input: number) => string,
): string {
  return redactUrls(rawName(op, description, nameOf));
}

function rawName(
  op: Op,
  description: Readonly<Record<string, string>>,
  nameOf: (input: number) => string,
): string {
  if (Object.hasOwn(description, CUSTOM_NAME)) return description[CUSTOM_NAME] as string;
  switch (op.op.case) {
    case "source":
      return op.op.value.identifier;
    case "exec":
      return op.op.value.meta?.args.join(" ") ?? "";
    case "file":
      return op.op.value.actions
        .map(actionName)
        .filter((name) => name !== "")
        .join(", ");
    case "build":
      return "build";
    case "merge":
      return `merge (${op.inputs.map((_, input) => nameOf(input)).join(", ")})`;
    case "diff": {
      const side = (input: bigint | undefined): string => {
        if (input === -1n) return "scratch";
        const index = Number(input ?? 0n);
        if (index < 0 || index >= op.inputs.length) {
          throw new BuildError("invalid_argument", `invalid diff input index ${index}`);
        }
        return `(${nameOf(index)})`;
      };
      return `diff ${side(op.op.value.lower?.input)} -> ${side(op.op.value.upper?.input)}`;
    }
    case "passthrough":
      return `passthrough ${op.op.value.id}`;
    case undefined:
      return "unknown";
  }
}

function actionName({ action }: FileAction): string {
  switch (action.case) {
    case "mkdir":
      return `mkdir ${action.value.path}`;
    case "mkfile":
      return `mkfile ${action.value.path}`;
    case "symlink":
      return `symlink ${action.value.newpath} -> ${action.value.oldpath}`;
    case "rm":
      return `rm ${action.value.path}`;
    case "copy":
      return `copy ${action.value.src} ${action.value.dest}`;
    case undefined:
      return "";
  }
}
