import type { ExecOp, Op, PassthroughOp } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";

/** Largest known value of each enum of an exec op; a value beyond it is never taken for another. */
const MAX_NETWORK = 2;
const MAX_SECURITY = 1;
const MAX_MOUNT_TYPE = 4;
const MAX_SHARING = 2;
const MAX_CONTENT_CACHE = 2;

/**
 * Checks the shape of an op.
 *
 * @throws BuildError `invalid_argument`, in BuildKit's words.
 */
export function validateOp({ op, inputs }: Op): void {
  switch (op.case) {
    case "source":
      if (inputs.length > 0) throw invalid(`invalid source op with ${inputs.length} inputs`);
      return;
    case "exec":
      validateExec(op.value, inputs.length);
      return;
    case "file":
      if (op.value.actions.length === 0) throw invalid("invalid file op with no actions");
      return;
    case "merge":
      if (op.value.inputs.length !== inputs.length) {
        throw invalid(
          `invalid merge op with ${op.value.inputs.length} inner inputs and ${inputs.length} outer inputs`,
        );
      }
      return;
    case "diff": {
      const { lower, upper } = op.value;
      if (lower === undefined || upper === undefined) {
        throw invalid("invalid diff op with nil lower or upper input");
      }
      const used = [lower, upper].filter((side) => side.input !== -1n).length;
      if (used !== inputs.length) {
        throw invalid(`invalid diff op with ${used} inner inputs and ${inputs.length} outer inputs`);
      }
      return;
    }
    case "passthrough":
      validatePassthrough(op.value, inputs.length);
      return;
    case "build":
      return;
    case undefined:
      throw invalid("invalid op without a kind");
  }
}

function validateExec(exec: ExecOp, inputCount: number): void {
  if (exec.meta === undefined) throw invalid("invalid exec op with no meta");
  if (exec.meta.args.length === 0) throw invalid("invalid exec op with no args");
  if (exec.mounts.length === 0) throw invalid("invalid exec op with no mounts");
  if (!exec.mounts.some((mount) => mount.dest === "/")) throw invalid("invalid exec op with no rootfs");
  checkEnum("network mode", exec.network, MAX_NETWORK);
  checkEnum("security mode", exec.security, MAX_SECURITY);
  for (const mount of exec.mounts) {
    checkEnum("mount type", mount.mountType, MAX_MOUNT_TYPE);
    checkEnum("content cache mode", mount.contentCache, MAX_CONTENT_CACHE);
    checkEnum("cache sharing mode", mount.cacheOpt?.sharing ?? 0, MAX_SHARING);
    if (mount.input < -1n || mount.input >= BigInt(inputCount)) {
      throw invalid(
        `exec mount ${mount.dest} has invalid input index ${mount.input}, ${inputCount} provided`,
      );
    }
  }
}

function validatePassthrough(op: PassthroughOp, inputCount: number): void {
  if (op.id === "") throw invalid("invalid passthrough op with no id");
  if (op.outputs.length === 0) throw invalid("invalid passthrough op with no outputs");
  for (const index of op.outputs) {
    if (index < 0n || index >= BigInt(inputCount)) {
      throw invalid(`invalid passthrough output input index ${index}`);
    }
  }
}

function checkEnum(what: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max) throw invalid(`invalid ${what} ${value}`);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
