import { CacheSharingOpt, type ExecOp, type FileOp, type Op, type UserOpt } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";

/** BuildKit's checks and texts, then those of every index and enum, which BuildKit leaves to the op itself. */
export function checkOp({ op, inputs }: Op): void {
  const count = inputs.length;
  switch (op.case) {
    case "source":
      if (count !== 0) throw invalid(`invalid source op with ${count} inputs`);
      return;
    case "exec":
      checkExec(op.value, count);
      return;
    case "file":
      checkFile(op.value, count);
      return;
    case "build":
      if (op.value.builder !== -1n) throw invalid("only LLB builder is currently allowed");
      for (const key of Object.keys(op.value.inputs)) {
        const { input } = op.value.inputs[key]!;
        if (input < 0n || input >= BigInt(count)) throw invalid(`invalid index ${input}`);
      }
      return;
    case "merge":
      if (op.value.inputs.length !== count) {
        throw invalid(
          `invalid merge op with ${op.value.inputs.length} inner inputs and ${count} outer inputs`,
        );
      }
      for (const { input } of op.value.inputs) {
        if (input < 0n || input >= BigInt(count)) throw invalid(`invalid merge input index ${input}`);
      }
      return;
    case "diff":
      checkDiff(op.value.lower?.input, op.value.upper?.input, count);
      return;
    case "passthrough":
      if (op.value.id === "") throw invalid("invalid passthrough op with no id");
      if (op.value.outputs.length === 0) throw invalid("invalid passthrough op with no outputs");
      for (const input of op.value.outputs) {
        if (input < 0n || (count > 0 && input >= BigInt(count))) {
          throw invalid(`invalid passthrough output input index ${input}`);
        }
      }
      return;
    case undefined:
      throw invalid("invalid nil op");
  }
}

function checkDiff(lower: bigint | undefined, upper: bigint | undefined, count: number): void {
  if (lower === undefined || upper === undefined) {
    throw invalid("invalid diff op with nil lower or upper input");
  }
  const inner = Number(lower !== -1n) + Number(upper !== -1n);
  if (inner !== count) {
    throw invalid(`invalid diff op with ${inner} inner inputs and ${count} outer inputs`);
  }
  for (const input of [lower, upper]) {
    if (input < -1n || input >= BigInt(count)) throw invalid(`invalid diff input index ${input}`);
  }
}

function checkExec(exec: ExecOp, count: number): void {
  if (exec.meta === undefined) throw invalid("invalid exec op with no meta");
  if (exec.meta.args.length === 0) throw invalid("invalid exec op with no args");
  if (exec.mounts.length === 0) throw invalid("invalid exec op with no mounts");
  if (!exec.mounts.some((mount) => mount.dest === "/")) throw invalid("invalid exec op with no rootfs");
  // Unknown values must never pass as the harmless default.
  if (exec.security !== 0 && exec.security !== 1) throw invalid(`invalid security mode ${exec.security}`);
  if (exec.network < 0 || exec.network > 2) throw invalid(`invalid network mode ${exec.network}`);
  for (const mount of exec.mounts) {
    if (mount.input < -1n || mount.input >= BigInt(count)) {
      throw invalid(`invalid mountinput ${mount.input} for ${mount.dest}`);
    }
    if (mount.output < -1n) throw invalid(`invalid output index ${mount.output} for ${mount.dest}`);
    if (mount.mountType < 0 || mount.mountType > 4) {
      throw invalid(`mount type ${mount.mountType} not implemented`);
    }
    if (mount.contentCache < 0 || mount.contentCache > 2) {
      throw invalid(`invalid mount cache content ${mount.contentCache}`);
    }
    const sharing = mount.cacheOpt?.sharing ?? CacheSharingOpt.SHARED;
    if (sharing < 0 || sharing > 2) throw invalid(`invalid cache sharing ${sharing} for ${mount.dest}`);
  }
}

function checkFile(file: FileOp, count: number): void {
  const actions = file.actions.length;
  if (actions === 0) throw invalid("invalid file op with no actions");
  const total = BigInt(count + actions);
  const outputs = new Set<bigint>();
  file.actions.forEach((action, i) => {
    if (action.input < -1n || action.input >= total) {
      throw invalid(`invalid input index ${action.input}, ${total} provided`);
    }
    if (action.secondaryInput < -1n || action.secondaryInput >= total) {
      throw invalid(`invalid secondary input index ${action.secondaryInput}, ${count} provided`);
    }
    if (action.action.case === undefined) throw invalid(`invalid action type of action ${i}`);
    if (action.action.case !== "rm") {
      const owner = action.action.value.owner;
      checkUser(owner?.user, count);
      checkUser(owner?.group, count);
    }
    if (action.output < 0n) return;
    if (outputs.has(action.output)) throw invalid(`duplicate output ${action.output}`);
    outputs.add(action.output);
  });
  if (outputs.size === 0) throw invalid("no outputs specified");
  for (let i = 0; i < outputs.size; i++) {
    if (!outputs.has(BigInt(i))) throw invalid(`missing output index ${i}`);
  }
  checkLoops(file, count);
}

function checkUser(owner: UserOpt | undefined, count: number): void {
  if (owner?.user.case !== "byName") return;
  const { input } = owner.user.value;
  if (input < -1n || input >= BigInt(count)) throw invalid(`invalid user index ${input}`);
}

/** Follows the actions that an action builds on; each is entered once. */
function checkLoops(file: FileOp, count: number): void {
  const state = new Uint8Array(file.actions.length);
  const stack: number[] = [];
  for (let start = 0; start < file.actions.length; start++) {
    if (state[start] === 0) stack.push(start);
    while (stack.length > 0) {
      const at = stack.at(-1)!;
      if (state[at] !== 0) {
        state[at] = 2;
        stack.pop();
        continue;
      }
      state[at] = 1;
      const action = file.actions[at]!;
      for (const input of [action.input, action.secondaryInput]) {
        const next = Number(input) - count;
        if (next < 0) continue;
        if (state[next] === 1) throw invalid(`loop from index ${at}`);
        if (state[next] === 0) stack.push(next);
      }
    }
  }
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
