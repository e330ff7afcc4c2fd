import { lookup } from "node:dns/promises";
import { closeSync, mkdirSync, openSync, readdirSync, rmSync } from "node:fs";
import { connect, Socket } from "node:net";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { newContainerId } from "../container-id.ts";
import { CLONE_NEWNET, listenLoopback, setns, startConnect } from "../libc.ts";
import type { ContainerNetwork } from "../network.ts";
import type { Zygote } from "../zygote.ts";
import { ExecProxy, type ProxyCheck, type ProxyDial } from "./exec-proxy.ts";
import type { ProxyCapture } from "./proxy-capture.ts";
import { proxyEnv } from "./proxy-env.ts";
import { addressBytes, CertificateAuthority } from "./x509.ts";

/** How a container's way out is watched. */
export interface ProxyConfig {
  readonly check?: ProxyCheck;
  readonly capture?: ProxyCapture;
}

/** A network whose only way out is a proxy of the daemon. */
export interface ProxiedNetwork extends ContainerNetwork {
  readonly env: readonly string[];
  /** Certificate of the proxy's authority, for the container's trust store. */
  readonly caPem: string;
}

/** True for a network that {@link ProxyNetworks} made. */
export function isProxied(network: ContainerNetwork): network is ProxiedNetwork {
  return "caPem" in network;
}

/**
 * Makes networks for containers that may use HTTP only, watched: a network namespace with nothing but a loopback
 * device, on which a proxy of this process listens. What that fetches goes out over the container's `egress`.
 */
export class ProxyNetworks {
  readonly #zygote: Zygote;
  readonly #dir: string;
  #authority: Promise<CertificateAuthority> | undefined;

  /** Namespaces are kept in `net/proxy` of `root`; those that a crash left there are removed. */
  constructor(zygote: Zygote, root: string) {
    this.#zygote = zygote;
    this.#dir = join(root, "net/proxy");
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(this.#dir)) rmSync(join(this.#dir, name), { force: true });
  }

  /** `egress` becomes the network's: it is released with it. */
  async open(egress: ContainerNetwork, config: ProxyConfig): Promise<ProxiedNetwork> {
    refuseUpstreamProxy(process.env);
    this.#authority ??= CertificateAuthority.create();
    const authority = await this.#authority;
    const path = join(this.#dir, newContainerId());
    const undo = new AsyncDisposableStack();
    undo.use(egress);
    try {
      await this.#zygote.request("createNetns", { path, loopback: true });
      undo.defer(async () => void (await this.#zygote.request("removeNetns", { path })));
      const { fd, port } = this.#inNetns(path, () => listenLoopback());
      const proxy = undo.use(new ExecProxy({ ...config, authority, dial: this.#dialOver(egress) }));
      await new Promise<void>((resolve, reject) => {
        proxy.server.once("error", reject);
        proxy.server.listen({ fd }, resolve);
      });
      const url = `http://127.0.0.1:${port}`;
      return {
        spec: { kind: "path", path },
        env: proxyEnv(url),
        caPem: authority.pem,
        [Symbol.asyncDispose]: () => undo.disposeAsync(),
      };
    } catch (error) {
      await undo.disposeAsync();
      throw error;
    }
  }

  /** Runs `work`, synchronously, with this thread in a namespace of the zygote's. */
  #inNetns<T>(path: string, work: () => T): T {
    const own = openSync("/proc/thread-self/ns/net", "r");
    const other = openSync(this.#zygote.viewPath + path, "r");
    try {
      setns(other, CLONE_NEWNET);
      try {
        return work();
      } finally {
        setns(own, CLONE_NEWNET);
      }
    } finally {
      closeSync(other);
      closeSync(own);
    }
  }

  /** Names are resolved by the daemon; connections start in the egress's namespace, loopback included. */
  #dialOver(egress: ContainerNetwork): ProxyDial {
    const { spec } = egress;
    if (spec.kind === "host") return async (host, port) => await connected(connect({ host, port }));
    if (spec.kind === "new") {
      return async () => {
        throw new BuildError("permission_denied", "this step has no network");
      };
    }
    return async (host, port) => {
      const { address } = await lookup(host);
      const fd = this.#inNetns(spec.path, () => startConnect(addressBytes(address), port));
      return new Socket({ fd, readable: true, writable: true });
    };
  }
}

/** How long a connection may take. */
const CONNECT_TIMEOUT_MS = 30_000;

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new Error("connection timed out")), CONNECT_TIMEOUT_MS);
    socket.once("close", () => clearTimeout(timer));
    socket.once("error", reject);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/** @throws BuildError `unimplemented` where the daemon itself is told to go through a proxy. */
function refuseUpstreamProxy(env: Readonly<Record<string, string | undefined>>): void {
  const name = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"].find((each) => env[each]);
  if (name === undefined) return;
  throw new BuildError(
    "unimplemented",
    `the proxy network can't go through another proxy (${name} is set for the daemon)`,
  );
}
