import { chmodSync, chownSync, closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SSH } from "@kiln/api/sshforward";
import { BuildError, errorMessage } from "@kiln/base";
import { openMessageDuplex } from "@kiln/grpc";
import { defaultSshId, sessionHeaders } from "../headers.ts";
import { callOn, type SessionCaller } from "./caller.ts";

/** Throws what the client says when it doesn't forward an agent of that id. */
export async function checkSshAgent(caller: SessionCaller, id: string, signal?: AbortSignal): Promise<void> {
  await caller.channel.unary(SSH.method.checkAgent, { ID: id }, callOn(caller, { signal }));
}

/** Who may use an agent's socket. */
export interface SshSocketOptions {
  readonly id: string;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** A socket behind which a client's agent answers. */
export interface SshSocket extends AsyncDisposable {
  readonly path: string;
}

/** Connections to one agent socket at a time. */
const maxConnections = 256;

/**
 * Makes a unix socket in a folder of its own that forwards to the client's agent. Disposing of it closes its
 * connections and removes it.
 */
export async function mountSshSocket(caller: SessionCaller, opts: SshSocketOptions): Promise<SshSocket> {
  const dir = mkdtempSync(join(tmpdir(), ".buildkit-ssh-sock"));
  const path = join(dir, "ssh_auth_sock");
  // Names of sockets are short (107 bytes), those of folders needn't be.
  const dirFd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    forward(caller, socket, opts.id || defaultSshId).catch(() => socket.destroy());
  });
  server.maxConnections = maxConnections;
  const dispose = (): Promise<void> => {
    server.close();
    for (const socket of sockets) socket.destroy();
    closeSync(dirFd);
    rmSync(dir, { recursive: true, force: true });
    return Promise.resolve();
  };
  try {
    chmodSync(dir, 0o711);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ path: `/proc/self/fd/${dirFd}/ssh_auth_sock` }, resolve);
    });
    chownSync(path, opts.uid, opts.gid);
    chmodSync(path, opts.mode);
  } catch (error) {
    await dispose();
    throw new BuildError("internal", `failed to make ssh socket: ${errorMessage(error)}`, { cause: error });
  }
  return { path, [Symbol.asyncDispose]: dispose };
}

async function forward(caller: SessionCaller, socket: Socket, id: string): Promise<void> {
  const call = await caller.channel.call(
    SSH.method.forwardAgent,
    callOn(caller, { metadata: { [sessionHeaders.sshId]: id } }),
  );
  const agent = openMessageDuplex({
    receive: async () => (await call.receive())?.data,
    send: (data) => call.send({ data }),
    closeSend: () => call.closeSend(),
    cancel: () => call.cancel(),
  });
  agent.on("error", () => socket.destroy());
  socket.on("close", () => agent.destroy());
  socket.pipe(agent);
  agent.pipe(socket);
}
