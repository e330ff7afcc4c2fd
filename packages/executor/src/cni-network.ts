import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { BuildError, errorMessage, sleep } from "@kiln/base";
import { tryLockFile } from "@kiln/sys";
import {
  type CniContainer,
  type CniNetwork,
  CniRunner,
  loopbackNetwork,
  parseCniConfig,
  readCniConfig,
} from "./cni.ts";
import { newContainerId } from "./container-id.ts";
import { deleteBridge } from "./libc.ts";
import { NetnsPool } from "./netns-pool.ts";
import { type ContainerNetwork, hostNetwork, type NetworkProvider } from "./network.ts";
import { findProgram } from "./runtime-choice.ts";
import type { Zygote } from "./zygote.ts";

/** How networks are made; the daemon's `--oci-worker-net` and what belongs to it. */
export interface NetworkOptions {
  /** "" is `auto`. */
  readonly mode: "" | "auto" | "host" | "cni" | "bridge";
  /** Directory in whose `net/cni` namespaces are kept. */
  readonly root: string;
  readonly zygote: Zygote;
  readonly cniConfigPath: string;
  readonly cniBinaryDir: string;
  readonly poolSize: number;
  readonly bridgeName: string;
  readonly bridgeSubnet: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Hears of what goes wrong in the background, and of the fall back to the host's network. */
  warn(text: string): void;
}

/** How often a lock that another daemon holds is tried. */
const LOCK_RETRY_MS = 50;

/**
 * Makes the default network of containers. `auto` is a bridge if BUILDKIT_NETWORK_BRIDGE_AUTO says so, else what
 * the CNI configuration says, else the host's network.
 *
 * @throws BuildError when what the mode needs is missing or doesn't work.
 */
export async function createNetwork(options: NetworkOptions): Promise<NetworkProvider> {
  switch (options.mode) {
    case "host":
      return hostNetwork;
    case "cni":
      return await createCni(options);
    case "bridge":
      return await createBridge(options);
    case "auto":
    case "":
      if (/^(1|t|T|TRUE|true|True)$/.test(options.env.BUILDKIT_NETWORK_BRIDGE_AUTO ?? "")) {
        return await createBridge(options);
      }
      if (existsSync(options.cniConfigPath)) return await createCni(options);
      options.warn("using host network as the default");
      return hostNetwork;
    default:
      throw new BuildError("invalid_argument", `invalid network mode: ${JSON.stringify(options.mode)}`);
  }
}

/** RootlessKit's network namespace apart from the daemon's, which networks are to be made in. */
function detachedNetns(env: NetworkOptions["env"]): string | undefined {
  const dir = env.ROOTLESSKIT_STATE_DIR;
  if (!dir) return undefined;
  const path = join(dir, "netns");
  return existsSync(path) ? path : undefined;
}

async function createCni(options: NetworkOptions): Promise<NetworkProvider> {
  const network = readCniConfig(options.cniConfigPath);
  if (!existsSync(options.cniBinaryDir)) {
    throw new BuildError(
      "not_found",
      `failed to read cni binary dir ${JSON.stringify(options.cniBinaryDir)}: no such file or directory`,
    );
  }
  const provider = new CniProvider(options, {
    dirs: [options.cniBinaryDir],
    networks: [loopbackNetwork(), network],
    onClose: () => undefined,
  });
  await provider.start();
  return provider;
}

const BRIDGE_PLUGINS = ["bridge", "loopback", "host-local", "firewall"] as const;

/** The plugins that ship with BuildKit (`buildkit-cni-…` in the search path), else those of the plugin directory. */
function bridgePlugins(options: NetworkOptions): { dirs: string[]; names: string[] } {
  const shipped = BRIDGE_PLUGINS.map((name) => findProgram(`buildkit-cni-${name}`));
  if (shipped.every((path): path is string => path !== undefined)) {
    return {
      dirs: [...new Set(shipped.map((path) => dirname(path)))],
      names: shipped.map((path) => basename(path)),
    };
  }
  const bridge = join(options.cniBinaryDir, "bridge");
  if (!existsSync(bridge)) {
    throw new BuildError(
      "not_found",
      `failed to find CNI bridge ${JSON.stringify(bridge)} or buildkit-cni-bridge: no such file or directory`,
    );
  }
  return { dirs: [options.cniBinaryDir], names: [...BRIDGE_PLUGINS] };
}

/** Network list of the `bridge` mode. */
export function bridgeNetworks(
  names: readonly string[],
  opts: { readonly bridge: string; readonly subnet: string; readonly firewallBackend: string },
): CniNetwork[] {
  const [bridge = "", loopback = "", hostLocal = "", firewall = ""] = names;
  const list = {
    cniVersion: "1.0.0",
    name: "buildkit",
    plugins: [
      { type: loopback },
      {
        type: bridge,
        bridge: opts.bridge,
        isDefaultGateway: true,
        ipMasq: true,
        ipam: { type: hostLocal, ranges: [[{ subnet: opts.subnet }]] },
      },
      { type: firewall, backend: opts.firewallBackend, ingressPolicy: "same-bridge" },
    ],
  };
  return [parseCniConfig(JSON.stringify(list), true)];
}

async function createBridge(options: NetworkOptions): Promise<NetworkProvider> {
  const { dirs, names } = bridgePlugins(options);
  const { bridgeName: bridge, bridgeSubnet: subnet } = options;
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(bridge)) {
    throw new BuildError("invalid_argument", `invalid bridge name ${JSON.stringify(bridge)}`);
  }
  // firewalld can't be used from a user namespace.
  const firewallBackend = options.env.ROOTLESSKIT_STATE_DIR ? "iptables" : "";
  const existed = existsSync(`/sys/class/net/${bridge}`);
  const provider = new CniProvider(options, {
    dirs,
    networks: bridgeNetworks(names, { bridge, subnet, firewallBackend }),
    onClose: () => {
      if (!existed && existsSync(`/sys/class/net/${bridge}`)) deleteBridge(bridge);
    },
  });
  await provider.start();
  return provider;
}

/** A network namespace with its interfaces. */
interface Netns {
  readonly container: CniContainer;
  readonly results: readonly unknown[];
}

/** What differs between the modes that use plugins. */
interface CniSetup {
  readonly dirs: readonly string[];
  readonly networks: readonly CniNetwork[];
  onClose(): void;
}

/** Gives containers networks that CNI plugins make. */
class CniProvider implements NetworkProvider {
  readonly mode = "cni";
  readonly #options: NetworkOptions;
  readonly #setup: CniSetup;
  readonly #runner: CniRunner;
  readonly #dir: string;
  readonly #pool: NetnsPool<Netns>;

  constructor(options: NetworkOptions, setup: CniSetup) {
    this.#options = options;
    this.#setup = setup;
    this.#runner = new CniRunner(options.zygote, setup.dirs, detachedNetns(options.env));
    this.#dir = join(options.root, "net/cni");
    this.#pool = new NetnsPool<Netns>({
      targetSize: options.poolSize,
      make: () => this.#make([]),
      remove: (netns) => this.#remove(netns),
      onError: (error) => options.warn(`network namespace: ${errorMessage(error)}`),
    });
  }

  /** Releases what a crash left, and makes a first namespace to see that it works. */
  async start(): Promise<void> {
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    using _lock = await this.#lock();
    for (const name of readdirSync(this.#dir)) await this.#removeLeftover(name);
    const first = await this.#pool.get();
    this.#pool.put(first);
    this.#pool.fill();
  }

  /** Daemons that start at once and share networks name a lock file. */
  async #lock(): Promise<Disposable> {
    const path = this.#options.env.BUILDKIT_CNI_INIT_LOCK_PATH;
    if (!path) return { [Symbol.dispose]: () => undefined };
    for (;;) {
      const lock = tryLockFile(path);
      if (lock) return lock;
      await sleep(LOCK_RETRY_MS);
    }
  }

  async #removeLeftover(name: string): Promise<void> {
    if (name.endsWith(".json")) {
      if (!existsSync(join(this.#dir, name.slice(0, -".json".length)))) rmSync(join(this.#dir, name));
      return;
    }
    try {
      const file = join(this.#dir, `${name}.json`);
      const results: unknown = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : [];
      // The namespace went with the zygote; what remains are addresses and rules.
      const container = { id: name, netns: "", args: [] };
      await this.#runner.del(this.#setup.networks, container, Array.isArray(results) ? results : []);
    } catch (error) {
      this.#options.warn(
        `failed to release network namespace ${JSON.stringify(name)} left over from previous run: ${errorMessage(error)}`,
      );
    }
    rmSync(join(this.#dir, name), { force: true });
    rmSync(join(this.#dir, `${name}.json`), { force: true });
  }

  async #make(args: readonly string[]): Promise<Netns> {
    const id = newContainerId();
    const netns = join(this.#dir, id);
    await this.#options.zygote.request("createNetns", { path: netns });
    const container = { id, netns, args };
    try {
      const results = await this.#runner.add(this.#setup.networks, container);
      writeFileSync(`${netns}.json`, JSON.stringify(results));
      return { container, results };
    } catch (error) {
      await this.#options.zygote.request("removeNetns", { path: netns });
      throw new BuildError("unknown", `CNI setup error: ${errorMessage(error)}`, { cause: error });
    }
  }

  async #remove({ container, results }: Netns): Promise<void> {
    try {
      await this.#runner.del(this.#setup.networks, container, results);
    } finally {
      await this.#options.zygote.request("removeNetns", { path: container.netns });
      rmSync(`${container.netns}.json`, { force: true });
    }
  }

  /** A name of its own goes to the plugins (the dnsname plugin serves it), and its namespace isn't shared. */
  async acquire(hostname: string): Promise<ContainerNetwork> {
    if (hostname !== "") return await this.#acquireNamed(hostname);
    const netns = await this.#pool.get();
    return {
      spec: { kind: "path", path: netns.container.netns },
      [Symbol.asyncDispose]: async () => this.#pool.put(netns),
    };
  }

  async #acquireNamed(hostname: string): Promise<ContainerNetwork> {
    if (/[;=\s]/.test(hostname)) {
      throw new BuildError("invalid_argument", `invalid hostname ${JSON.stringify(hostname)}`);
    }
    const netns = await this.#make([`K8S_POD_NAME=${hostname}`, "IgnoreUnknown=1"]);
    return {
      spec: { kind: "path", path: netns.container.netns },
      [Symbol.asyncDispose]: () => this.#remove(netns),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
    this.#setup.onClose();
  }
}
