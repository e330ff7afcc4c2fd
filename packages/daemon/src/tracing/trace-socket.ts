import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { TraceService } from "@kiln/api/otlp";
import { wrapError } from "@kiln/base";
import { type Listener, listen, Router } from "@kiln/grpc";
import type { Logger } from "../log.ts";
import type { Tracer } from "./tracer.ts";

/**
 * Lets steps send traces over a socket that has nothing else. A path that was asked for must work; without its
 * own one a daemon only does without.
 */
export async function listenForTraces(
  socket: { readonly path: string; readonly isGiven: boolean },
  tracer: Tracer,
  log: Logger,
): Promise<AsyncDisposable> {
  const { path } = socket;
  const router = new Router().add(TraceService, tracer.handlers());
  let listener: Listener;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    // for steps of any user; on the host the folder keeps others out
    listener = await listen(router, { kind: "unix", path, mode: 0o666, uid, gid });
  } catch (error) {
    if (socket.isGiven) throw wrapError(error, "creating trace controller listener");
    log.warn("steps can't send traces", error);
    return { [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  return {
    [Symbol.asyncDispose]: async () => {
      await listener.close();
      await router.close({ timeoutMs: 0 });
    },
  };
}
