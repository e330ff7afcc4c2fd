/** `buildctl debug dump-llb`. */
import { fromBinary, toJson } from "@bufbuild/protobuf";
import { type Op, OpMetadataSchema, OpSchema } from "@kiln/api/pb";
import { BuildError, errorMessage } from "@kiln/base";
import { goJson, quoteGo } from "@kiln/formats";
import { sha256 } from "@kiln/oci";
import type { CommandBody } from "../command/command.ts";
import { loadLlb } from "./build.ts";

/** The command. */
export const dumpLlbCommand: CommandBody = {
  usage: "[options] <llbfile>",
  flags: [{ name: "dot", kind: "bool", usage: "Output dot format" }],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const definition = await loadLlb(ctx.args[0], ctx.terminal.stdin);
    const ops = definition.def.map((bytes) => ({ op: decode(bytes), digest: sha256(bytes) }));
    if (ctx.flags.bool("dot")) {
      ctx.terminal.stdout.write(dotText(ops));
      return 0;
    }
    for (const { op, digest } of ops) {
      const metadata = definition.metadata[digest];
      const line = goJson({
        Op: toJson(OpSchema, op),
        Digest: digest,
        OpMetadata: metadata ? toJson(OpMetadataSchema, metadata) : {},
      });
      ctx.terminal.stdout.write(`${line}\n`);
    }
    return 0;
  },
};

interface DigestedOp {
  readonly op: Op;
  readonly digest: string;
}

function decode(bytes: Uint8Array): Op {
  try {
    return fromBinary(OpSchema, bytes);
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to parse op: ${errorMessage(error)}`, { cause: error });
  }
}

function dotText(ops: readonly DigestedOp[]): string {
  let out = "digraph {\n";
  for (const { op, digest } of ops) {
    const [name, shape] = labelOf(op, digest);
    out += `  ${quoteGo(digest)} [label=${quoteGo(name)} shape=${quoteGo(shape)}];\n`;
  }
  for (const { op, digest } of ops) {
    for (const [i, input] of op.inputs.entries()) {
      const mounts = op.op.case === "exec" ? op.op.value.mounts : [];
      const mount = mounts.findLast(({ input: index, dest }) => Number(index) === i && dest !== "/");
      out += `  ${quoteGo(input.digest)} -> ${quoteGo(digest)} [label=${quoteGo(mount?.dest ?? "")}];\n`;
    }
  }
  return `${out}}\n`;
}

function labelOf({ op }: Op, digest: string): [name: string, shape: string] {
  switch (op.case) {
    case "source":
      return [op.value.identifier, "ellipse"];
    case "exec":
      return [(op.value.meta?.args ?? []).join(" "), "box"];
    case "build":
      return ["build", "box3d"];
    case "merge":
      return ["merge", "invtriangle"];
    case "diff":
      return ["diff", "doublecircle"];
    case "file":
      return [op.value.actions.map(({ action }) => actionText(action)).join(","), "note"];
    default:
      return [digest, "plaintext"];
  }
}

type FileAction = Extract<Op["op"], { case: "file" }>["value"]["actions"][number]["action"];

function actionText(action: FileAction): string {
  switch (action.case) {
    case "copy":
      return `copy{src=${action.value.src}, dest=${action.value.dest}}`;
    case "mkfile":
      return `mkfile{path=${action.value.path}}`;
    case "mkdir":
      return `mkdir{path=${action.value.path}}`;
    case "rm":
      return `rm{path=${action.value.path}}`;
    case "symlink":
      return `symlink{oldpath=${action.value.oldpath}, newpath=${action.value.newpath}}`;
    default:
      return "";
  }
}
