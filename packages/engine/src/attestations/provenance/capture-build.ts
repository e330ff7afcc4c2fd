import { MountType, NetMode } from "@kiln/api/pb";
import type { RanVertex } from "@kiln/solver";
import type { LlbOp, OpResult } from "../../op-context.ts";
import { ExecOperation } from "../../ops/exec/exec-op.ts";
import { SourceOperation } from "../../ops/source-op.ts";
import { Capture } from "./capture.ts";

/**
 * What went into a tree, from the vertices that it was built with. Vertices that nothing had to be asked
 * about (their result was known from their inputs alone) have no runner and tell nothing.
 *
 * @throws BuildError for a source that was resolved to something other than it names.
 */
export function captureBuild(ran: readonly RanVertex<LlbOp, OpResult>[]): Capture {
  const capture = new Capture();
  for (const { vertex, runner } of ran) {
    if (runner === undefined) continue;
    const { op } = vertex.op.op;
    if (runner instanceof SourceOperation) runner.capture(capture);
    else if (op.case === "exec") captureExec(capture, vertex, runner);
    else if (op.case === "build") capture.incompleteMaterials = true;
  }
  return capture;
}

function captureExec(capture: Capture, { op, digest }: { op: LlbOp; digest: string }, runner: unknown): void {
  if (op.op.op.case !== "exec") return;
  const exec = op.op.op.value;
  for (const mount of exec.mounts) {
    if (mount.mountType === MountType.SECRET) {
      capture.addSecret({ id: mount.secretOpt?.ID ?? "", optional: mount.secretOpt?.optional ?? false });
    }
    if (mount.mountType === MountType.SSH) {
      capture.addSsh({ id: mount.SSHOpt?.ID ?? "", optional: mount.SSHOpt?.optional ?? false });
    }
  }
  for (const secret of exec.secretenv) capture.addSecret({ id: secret.ID, optional: secret.optional });
  if (exec.network !== NetMode.NONE) capture.networkAccess = true;
  if (!(runner instanceof ExecOperation)) return;
  if (runner.usage !== undefined) capture.usage.set(op.originalDigest, runner.usage);
  if (!runner.proxied) return;
  capture.proxyNetwork = true;
  for (const { url, digest: body } of runner.proxyMaterials()) capture.addHttp({ url, digest: body });
  const name = exec.meta?.args.join(" ") ?? "";
  for (const { method, url, reason } of runner.proxyIncomplete()) {
    capture.incompleteMaterials = true;
    capture.incompleteRequests.push({ op: digest, name, method, uri: url, reason });
  }
}
