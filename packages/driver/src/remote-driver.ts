/** The driver for a daemon that somebody else runs: unix socket, TCP with or without TLS, ssh. */
import { isAbsolute } from "node:path";
import { BuildError, isBuildError } from "@kiln/base";
import { BuildkitClient, dialTo, loadTls, type TlsFiles } from "@kiln/client";
import type { Dial } from "@kiln/grpc/client";
import { parseGoBool } from "./go-bool.ts";
import type { BootOptions, NodeDriver, NodeStatus } from "./node-driver.ts";
import type { StoredNode } from "./node-group.ts";
import { asVertex } from "./vertex.ts";

const BOOT_TIMEOUT_MS = 20_000;

/** Schemes that the remote driver's endpoints may have in Buildx; those that Kiln can't dial are refused on use. */
const SCHEMES = ["tcp", "unix", "ssh", "npipe", "docker-container", "kube-pod"];

/** @throws BuildError for a text that is no endpoint of a remote daemon. */
export function validateRemoteEndpoint(endpoint: string): void {
  const scheme = /^([^:]*):\/\//.exec(endpoint)?.[1];
  if (scheme === undefined) {
    throw new BuildError("invalid_argument", `failed to parse endpoint ${endpoint}: invalid endpoint`);
  }
  if (!SCHEMES.includes(scheme)) {
    throw new BuildError("invalid_argument", `unrecognized url scheme ${scheme}`);
  }
}

/** Makes the driver of a node. @throws BuildError for options that it doesn't have. */
export function createRemoteDriver(node: StoredNode): NodeDriver {
  if (Object.keys(node.files ?? {}).length > 0) {
    throw new BuildError("invalid_argument", "setting config file is not supported for remote driver");
  }
  if ((node.flags ?? []).length > 0) {
    throw new BuildError("invalid_argument", "setting buildkit flags is not supported for remote driver");
  }
  const { tls, defaultLoad } = readOptions(node);
  return new RemoteDriver(node.endpoint, tls, defaultLoad);
}

class RemoteDriver implements NodeDriver {
  readonly name = "remote";
  readonly defaultLoad: boolean;
  readonly #endpoint: string;
  readonly #tls: TlsFiles | undefined;
  #client: Promise<BuildkitClient> | undefined;

  constructor(endpoint: string, tls: TlsFiles | undefined, defaultLoad: boolean) {
    this.#endpoint = endpoint;
    this.#tls = tls;
    this.defaultLoad = defaultLoad;
  }

  client(): Promise<BuildkitClient> {
    this.#client ??= this.#connect();
    return this.#client;
  }

  async #connect(): Promise<BuildkitClient> {
    const tls = this.#tls && loadTls(this.#tls);
    return BuildkitClient.connect(this.#endpoint, tls ? { tls } : {});
  }

  dial(): Dial {
    return dialTo(this.#endpoint, this.#tls && loadTls(this.#tls));
  }

  async boot(opts: BootOptions = {}): Promise<BuildkitClient> {
    const client = await this.client();
    if (await isAnswering(client, opts.signal)) return client;
    await asVertex("[internal] waiting for connection", opts.onStatus, () =>
      client.wait(BOOT_TIMEOUT_MS, opts.signal),
    );
    return client;
  }

  async status(signal?: AbortSignal): Promise<NodeStatus> {
    try {
      await (await this.client()).listWorkers([], { signal });
      return "running";
    } catch {
      return "inactive";
    }
  }

  async stop(): Promise<void> {
    // The daemon is somebody else's.
  }

  async remove(): Promise<void> {
    // The daemon is somebody else's.
  }

  async close(): Promise<void> {
    await (await this.#client?.catch(() => undefined))?.close();
  }
}

/** True when a daemon answers at once; a daemon without `Info` is there too. */
export async function isAnswering(client: BuildkitClient, signal?: AbortSignal): Promise<boolean> {
  try {
    await client.info({ signal });
    return true;
  } catch (error) {
    if (isBuildError(error, "unimplemented")) return true;
    if (isBuildError(error, "unavailable")) return false;
    throw error;
  }
}

function readOptions(node: StoredNode): { tls: TlsFiles | undefined; defaultLoad: boolean } {
  const files: Record<string, string> = {};
  let defaultLoad = false;
  for (const [key, value] of Object.entries(node.driverOpts ?? {})) {
    if (key === "default-load") defaultLoad = parseGoBool(value);
    else if (key === "servername") files.serverName = value;
    else if (key === "cacert" || key === "cert" || key === "key") {
      if (!isAbsolute(value)) {
        throw new BuildError("invalid_argument", `non-absolute path '${value}' provided for ${key}`);
      }
      files[key === "cacert" ? "ca" : key] = value;
    } else {
      throw new BuildError("invalid_argument", `invalid driver option ${key} for remote driver`);
    }
  }
  if (Object.keys(files).length === 0) return { tls: undefined, defaultLoad };
  const missing = [
    files.ca === undefined ? "cacert" : "",
    files.cert !== undefined && files.key === undefined ? "key" : "",
    files.key !== undefined && files.cert === undefined ? "cert" : "",
  ].filter(Boolean);
  if (missing.length > 0) {
    throw new BuildError("invalid_argument", `tls enabled, but missing keys ${missing.join(", ")}`);
  }
  files.serverName ??= hostOf(node.endpoint);
  return { tls: files, defaultLoad };
}

function hostOf(endpoint: string): string {
  try {
    return new URL(endpoint).hostname;
  } catch {
    return "";
  }
}
