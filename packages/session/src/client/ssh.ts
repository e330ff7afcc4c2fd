import { readFileSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { SSH } from "@kiln/api/sshforward";
import { BuildError, errorMessage, nodeReason, wrapError } from "@kiln/base";
import type { CallContext, Router, ServerCall } from "@kiln/grpc/server";
import { defaultSshId, sessionHeaders } from "../headers.ts";
import type { Attachable } from "./attachable.ts";
import { AgentMessages, agentFailure, agentFrame, answerWithKeys, isAllowedForBuilds } from "./ssh-agent.ts";
import { parseSshKey, type SshKey } from "./ssh-key.ts";

/** One `--ssh` of the user. */
export interface SshAgentConfig {
  /** `default` when empty. */
  readonly id: string;
  /** One agent socket, or any number of key files; none means `$SSH_AUTH_SOCK`. */
  readonly paths: readonly string[];
  /** Forwards the socket as it is, whatever protocol it speaks. */
  readonly raw?: boolean;
}

type Backend =
  | { readonly kind: "socket"; readonly path: string; readonly raw: boolean }
  | { readonly kind: "keys"; readonly keys: readonly SshKey[] };

/** Largest private key file. */
const maxKeyBytes = 100 * 1024;
const dialTimeoutMs = 2000;

type Call = ServerCall<{ readonly data: Uint8Array }, { data: Uint8Array }>;

/** Forwards SSH agents to the daemon. Builds may list keys and sign, nothing else. */
export class SshProvider implements Attachable {
  readonly #backends = new Map<string, Backend>();

  /** Reads key files and checks sockets. Throws with the words of the original for what can't be used. */
  constructor(
    configs: readonly SshAgentConfig[],
    env: Readonly<Record<string, string | undefined>> = process.env,
  ) {
    for (const config of configs) {
      const id = config.id || defaultSshId;
      if (this.#backends.has(id))
        throw new BuildError("invalid_argument", `duplicate agent ID ${JSON.stringify(id)}`);
      this.#backends.set(id, backendOf({ ...config, id }, env));
    }
  }

  addTo(router: Router): void {
    router.add(SSH, {
      checkAgent: ({ ID }) => {
        this.#find(ID);
        return {};
      },
      forwardAgent: (call, ctx) => this.#forward(call, ctx),
    });
  }

  #find(id: string): Backend {
    const backend = this.#backends.get(id || defaultSshId);
    if (!backend) throw new BuildError("unknown", `unset ssh forward key ${id || defaultSshId}`);
    return backend;
  }

  async #forward(call: Call, ctx: CallContext): Promise<void> {
    const id = ctx.metadata.get(sessionHeaders.sshId) || defaultSshId;
    const backend = this.#find(id);
    ctx.sendHeaders();
    if (backend.kind === "keys") {
      const messages = new AgentMessages();
      for await (const { data } of call) {
        for (const message of messages.push(data))
          await call.send({ data: answerWithKeys(backend.keys, message) });
      }
      return;
    }
    const socket = await dial(backend.path, id);
    try {
      await forwardSocket(call, socket, ctx, backend.raw);
    } finally {
      socket.destroy();
    }
  }
}

function backendOf(config: SshAgentConfig, env: Readonly<Record<string, string | undefined>>): Backend {
  const raw = config.raw ?? false;
  try {
    if (config.paths.length !== 1 && raw) {
      throw new BuildError("invalid_argument", "raw mode must supply exactly one path");
    }
    const isEmpty = config.paths.length === 0 || (config.paths.length === 1 && config.paths[0] === "");
    return backendOfPaths(isEmpty ? [agentFromEnv(env)] : config.paths, raw);
  } catch (error) {
    throw wrapError(error, `failed to convert agent config for ID: ${JSON.stringify(config.id)}`);
  }
}

function agentFromEnv(env: Readonly<Record<string, string | undefined>>): string {
  const path = env.SSH_AUTH_SOCK;
  if (path) return path;
  throw new BuildError(
    "failed_precondition",
    "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
  );
}

function backendOfPaths(paths: readonly string[], raw: boolean): Backend {
  const keys: SshKey[] = [];
  let socket: string | undefined;
  for (const path of paths) {
    if (socket !== undefined) throw new BuildError("invalid_argument", "only single socket allowed");
    const st = statOf(path);
    if (st.isSocket()) {
      socket = path;
      continue;
    }
    if (raw) throw new BuildError("invalid_argument", "raw mode only supported with socket paths");
    if (st.isDirectory()) {
      throw new BuildError("invalid_argument", `failed to read ${path}: read ${path}: is a directory`);
    }
    if (st.size > maxKeyBytes)
      throw new BuildError("invalid_argument", `failed to parse ${path}: too large for a key`);
    try {
      keys.push(parseSshKey(readFileSync(path, "utf8")));
    } catch (error) {
      throw wrapError(error, `failed to parse ${path}`);
    }
  }
  if (socket === undefined) return { kind: "keys", keys };
  if (keys.length > 0) throw new BuildError("invalid_argument", "invalid combination of keys and sockets");
  return { kind: "socket", path: socket, raw };
}

function statOf(path: string) {
  try {
    return statSync(path);
  } catch (error) {
    throw new BuildError("not_found", `stat ${path}: ${nodeReason(error)}`, { cause: error });
  }
}

function dial(path: string, id: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    const fail = (error: Error): void => {
      socket.destroy();
      reject(
        new BuildError("unavailable", `failed to dial agent ${id}: ${errorMessage(error)}`, { cause: error }),
      );
    };
    const timer = setTimeout(() => fail(new Error("timeout")), dialTimeoutMs);
    socket.once("error", fail);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", fail);
      socket.on("error", () => socket.destroy());
      resolve(socket);
    });
  });
}

/** Both directions until either side is done. */
async function forwardSocket(call: Call, socket: Socket, ctx: CallContext, raw: boolean): Promise<void> {
  const toAgent = async (): Promise<void> => {
    const messages = new AgentMessages();
    for await (const { data } of call) {
      if (raw) {
        await write(socket, data);
        continue;
      }
      for (const message of messages.push(data)) {
        if (isAllowedForBuilds(message)) await write(socket, agentFrame(message));
        else await call.send({ data: agentFailure });
      }
    }
    socket.end();
  };
  const fromAgent = async (): Promise<void> => {
    for await (const chunk of socket) await call.send({ data: chunk as Buffer });
  };
  const onAbort = (): void => void socket.destroy();
  ctx.signal.addEventListener("abort", onAbort, { once: true });
  const upstream = toAgent();
  upstream.catch(() => socket.destroy());
  try {
    await fromAgent();
  } finally {
    ctx.signal.removeEventListener("abort", onAbort);
  }
}

function write(socket: Socket, data: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(data, (error) => (error ? reject(error) : resolve()));
  });
}
