/** Worker thread that carries out file actions with synchronous calls, off the daemon's event loop. */
import { parentPort } from "node:worker_threads";
import type { FileReply, FileRequest } from "./file-runner.ts";
import { pathError, plainError } from "./path-error.ts";
import { runAction } from "./run-action.ts";

async function answer(request: FileRequest): Promise<FileReply> {
  const { action } = request;
  try {
    await runAction(action);
    return { id: request.id };
  } catch (error) {
    const roots = action.kind === "copy" ? [action.source, action.root] : [action.root];
    return { id: request.id, error: plainError(pathError(error, roots)) };
  }
}

parentPort?.on("message", (request: FileRequest) => {
  void answer(request).then((reply) => parentPort?.postMessage(reply));
});
