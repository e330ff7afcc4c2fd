/** Loads an image into a Docker Engine: `POST /images/load` on its socket. */
import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { request as httpsRequest } from "node:https";
import { BuildError, errorMessage } from "@kiln/base";
import { asVertex, type DockerConfig, dockerEndpoint, type Env } from "@kiln/driver";
import type { SolveStatus } from "@kiln/progress";
import { type DockerTls, dockerTls } from "./docker-tls.ts";

const MAX_ANSWER_BYTES = 4 << 20;

/** A Docker Engine that can be reached. */
export interface DockerEngine {
  /** True when it keeps images in containerd, and so takes OCI archives with several platforms. */
  readonly takesOci: boolean;
  /** Sends an archive; resolves when the engine has the image. */
  load(archive: AsyncIterable<Uint8Array>, onStatus: (status: SolveStatus) => void): Promise<void>;
}

/** Connects to the engine of a context, the current one by default. @throws BuildError when there is none. */
export async function connectDocker(
  context: string,
  machine: { readonly env: Env; readonly dockerConfig: DockerConfig },
): Promise<DockerEngine> {
  const endpoint = dockerEndpoint(machine.env, machine.dockerConfig, context);
  if (endpoint === undefined) {
    throw new BuildError("not_found", `context ${JSON.stringify(context)} does not exist`);
  }
  const target = targetOf(endpoint.host, dockerTls(endpoint, machine));
  const info = await getJson(target, "/info", endpoint.host);
  const status = Array.isArray(info.DriverStatus) ? info.DriverStatus : [];
  const takesOci = status.some(
    (pair: unknown) =>
      Array.isArray(pair) && pair[0] === "driver-type" && pair[1] === "io.containerd.snapshotter.v1",
  );
  return { takesOci, load: (archive, onStatus) => load(target, archive, { host: endpoint.host, onStatus }) };
}

type Target =
  | { readonly socketPath: string }
  | { readonly host: string; readonly port: string; readonly tls?: DockerTls };

function targetOf(host: string, tls: DockerTls | undefined): Target {
  const unix = /^unix:\/\/(.+)$/.exec(host);
  if (unix) return { socketPath: unix[1] as string };
  const tcp = /^(?:tcp|http):\/\/(\[[^\]]+\]|[^:/]+)(?::(\d+))?\/?$/.exec(host);
  if (tcp) {
    const port = tcp[2] ?? (tls ? "2376" : "2375");
    return { host: (tcp[1] as string).replace(/^\[|\]$/g, ""), port, ...(tls && { tls }) };
  }
  throw new BuildError(
    "unimplemented",
    `loading into the Docker Engine at ${host} isn't supported by kiln yet`,
  );
}

function connectionError(error: unknown, host: string): BuildError {
  return new BuildError(
    "unavailable",
    `failed to connect to the docker API at ${host}; check if the path is correct and if the daemon is running: ${errorMessage(error)}`,
    { cause: error },
  );
}

function call(
  target: Target,
  what: RequestOptions,
  onResponse: (response: IncomingMessage) => void,
): ClientRequest {
  if (!("tls" in target) || target.tls === undefined) return httpRequest({ ...target, ...what }, onResponse);
  const { host, port, tls } = target;
  return httpsRequest({ host, port, ...tls, ...what }, onResponse);
}

async function getJson(target: Target, path: string, host: string): Promise<Record<string, unknown>> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    call(target, { path, method: "GET" }, resolve)
      .once("error", (error) => reject(connectionError(error, host)))
      .end();
  });
  const text = await readText(response);
  checkStatus(response, text);
  return JSON.parse(text) as Record<string, unknown>;
}

async function load(
  target: Target,
  archive: AsyncIterable<Uint8Array>,
  opts: { readonly host: string; readonly onStatus: (status: SolveStatus) => void },
): Promise<void> {
  const { promise: answered, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  answered.catch(() => undefined);
  const upload = call(
    target,
    {
      path: "/images/load?quiet=0",
      method: "POST",
      headers: { "content-type": "application/x-tar" },
    },
    resolve,
  );
  upload.on("error", (error) => reject(connectionError(error, opts.host)));
  const sent = send(upload, archive);
  sent.catch((error: unknown) => {
    upload.destroy();
    reject(error);
  });
  const response = await answered;
  if (response.statusCode !== 200) checkStatus(response, await readText(response));
  await asVertex("importing to docker", opts.onStatus, async (report) => {
    const started = new Map<string, number>();
    for await (const line of linesOf(response)) {
      const message = JSON.parse(line) as {
        error?: string;
        id?: string;
        status?: string;
        progressDetail?: { current?: number; total?: number };
      };
      if (message.error) throw new BuildError("unknown", message.error);
      if (!message.id) continue;
      const id = `loading layer ${message.id}`;
      if (!started.has(id)) started.set(id, Date.now());
      const { current = 0, total = 0 } = message.progressDetail ?? {};
      const isDone = total > 0 && current >= total;
      report({
        id,
        current: BigInt(current),
        total: BigInt(total),
        startedMs: started.get(id) as number,
        isDone,
      });
    }
  });
  await sent;
}

async function send(upload: ClientRequest, archive: AsyncIterable<Uint8Array>): Promise<void> {
  const { promise: closed, reject } = Promise.withResolvers<never>();
  closed.catch(() => undefined);
  upload.once("close", () =>
    reject(new BuildError("unavailable", "the Docker Engine closed the connection")),
  );
  for await (const chunk of archive) {
    if (upload.write(chunk)) continue;
    await Promise.race([new Promise<void>((resolve) => upload.once("drain", resolve)), closed]);
  }
  upload.end();
}

async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of response) {
    rest += (chunk as Buffer).toString();
    if (rest.length > MAX_ANSWER_BYTES)
      throw new BuildError("resource_exhausted", "the Docker Engine's answer is too long");
    const lines = rest.split("\n");
    rest = lines.pop() as string;
    for (const line of lines) if (line.trim() !== "") yield line;
  }
  if (rest.trim() !== "") yield rest;
}

async function readText(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response) {
    text += (chunk as Buffer).toString();
    if (text.length > MAX_ANSWER_BYTES)
      throw new BuildError("resource_exhausted", "the Docker Engine's answer is too long");
  }
  return text;
}

function checkStatus(response: IncomingMessage, text: string): void {
  if (response.statusCode === 200) return;
  let message = text.trim();
  try {
    message = String((JSON.parse(text) as { message?: unknown }).message ?? message);
  } catch {
    // Not JSON: the text is the message.
  }
  throw new BuildError(
    "unknown",
    `Error response from daemon: ${message || `status ${response.statusCode}`}`,
  );
}
