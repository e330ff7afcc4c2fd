/** Builders: the one that a command means, its nodes and what their daemons say about themselves. */
import type { WorkerRecord } from "@kiln/api/worker";
import { BuildError, errorMessage } from "@kiln/base";
import type { BuildkitClient } from "@kiln/client";
import { suggest } from "@kiln/formats";
import { formatPlatform, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { BuilderStore } from "./builder-store.ts";
import { ConfigDir, type Env } from "./config-dir.ts";
import {
  type DockerConfig,
  dockerEndpoint,
  endpointKey,
  proxyArgs,
  readDockerConfig,
} from "./docker-config.ts";
import { createEmbeddedDriver, EMBEDDED_DRIVER, embeddedPaths } from "./embedded-driver.ts";
import type { NodeDriver, NodeStatus } from "./node-driver.ts";
import { type NodeGroup, type StoredNode, validateName } from "./node-group.ts";
import { createRemoteDriver } from "./remote-driver.ts";

/** Drivers of Buildx that Kiln doesn't have. */
const OTHER_DRIVERS = ["docker", "docker-container", "kubernetes", "cloud"];

/** What a running daemon said about itself. */
export interface NodeData {
  readonly status: NodeStatus;
  readonly version: string;
  readonly workers: readonly WorkerRecord[];
}

/** One node of a builder. */
export class BuilderNode {
  readonly builder: string;
  readonly stored: StoredNode;
  readonly #createDriver: () => NodeDriver;
  #driver: NodeDriver | undefined;
  /** What went wrong with the node. */
  error: unknown;
  data: NodeData | undefined;

  constructor(builder: string, stored: StoredNode, createDriver: () => NodeDriver) {
    this.builder = builder;
    this.stored = stored;
    this.#createDriver = createDriver;
  }

  get name(): string {
    return this.stored.name;
  }

  /** @throws BuildError for an endpoint or options that the driver refuses. */
  get driver(): NodeDriver {
    this.#driver ??= this.#createDriver();
    return this.#driver;
  }

  /** Asks the daemon, if it runs, for its workers and version; a failure is kept in {@link error}. */
  async load(signal?: AbortSignal): Promise<void> {
    try {
      const status = await this.driver.status(signal);
      this.data = { status, version: "", workers: [] };
      if (status !== "running") return;
      const client = await this.driver.client();
      const workers = await client.listWorkers([], { signal });
      this.data = { status, workers, version: await versionOf(client, signal) };
    } catch (error) {
      this.error = error;
    }
  }

  /** Explicit platforms first, then those of the workers, without duplicates. */
  get platforms(): Platform[] {
    const known = [...(this.stored.platforms ?? []), ...(this.data?.workers ?? []).flatMap(workerPlatforms)];
    return [...new Map(known.map((platform) => [formatPlatform(platform), platform])).values()];
  }

  async close(): Promise<void> {
    await this.#driver?.close();
  }
}

/** The platforms that a worker builds for. */
export function workerPlatforms(worker: WorkerRecord): Platform[] {
  return worker.platforms.map((platform) =>
    normalizePlatform({
      os: platform.OS,
      architecture: platform.Architecture,
      ...(platform.Variant === "" ? {} : { variant: platform.Variant }),
      ...(platform.OSVersion === "" ? {} : { "os.version": platform.OSVersion }),
    }),
  );
}

async function versionOf(client: BuildkitClient, signal?: AbortSignal): Promise<string> {
  try {
    return (await client.info({ signal }))?.version ?? "";
  } catch {
    return "";
  }
}

/** A builder and its nodes. */
export interface Builder {
  readonly name: string;
  readonly driver: string;
  readonly group: NodeGroup;
  readonly nodes: readonly BuilderNode[];
  /** True for the one that Kiln starts by itself, which stands in no file. */
  readonly isEmbedded: boolean;
  readonly lastActivity: Date | undefined;
}

/** Finds builders for the commands of one run. */
export class BuilderRegistry {
  readonly env: Env;
  readonly store: BuilderStore;
  readonly dockerConfig: DockerConfig;
  readonly #kilnd: readonly string[];

  /** `kilnd` is the command that starts the embedded daemon. */
  constructor(env: Env, kilnd: readonly string[]) {
    this.env = env;
    this.store = new BuilderStore(ConfigDir.fromEnv(env));
    this.dockerConfig = readDockerConfig(env);
    this.#kilnd = kilnd;
  }

  /** The key under which builders are chosen here. */
  get currentKey(): string {
    const endpoint = dockerEndpoint(this.env, this.dockerConfig);
    if (endpoint === undefined) {
      throw new BuildError(
        "not_found",
        `context ${JSON.stringify(this.env.DOCKER_CONTEXT ?? "")} does not exist`,
      );
    }
    return endpointKey(endpoint);
  }

  /** The builder of a name; without one the chosen builder, else the embedded one. */
  find(name = ""): Builder {
    if (name === "") {
      const group = this.store.current(this.currentKey);
      return group ? this.#builderOf(group) : this.embedded();
    }
    const group = isName(name) ? this.store.find(name) : undefined;
    if (group) return this.#builderOf(group);
    if (name === "default" || name === dockerEndpoint(this.env, this.dockerConfig)?.context)
      return this.embedded();
    if (dockerEndpoint(this.env, this.dockerConfig, name)) {
      throw new BuildError(
        "unimplemented",
        `builder ${JSON.stringify(name)} is a Docker context: the docker driver isn't supported`,
      );
    }
    const near = suggest(name, [...this.store.list().map((known) => known.name), "default"], true);
    throw new BuildError("not_found", `no builder ${JSON.stringify(name)} found`, {
      ...(near === undefined ? {} : { hint: `did you mean ${near}?` }),
    });
  }

  /** The builder that needs no set-up. */
  embedded(): Builder {
    const endpoint = `unix://${embeddedPaths(this.env).socket}`;
    const stored: StoredNode = {
      name: "default",
      endpoint,
      platforms: null,
      driverOpts: null,
      flags: null,
      files: null,
    };
    const group: NodeGroup = { name: "default", driver: EMBEDDED_DRIVER, nodes: [stored], dynamic: false };
    const node = new BuilderNode("default", stored, () => createEmbeddedDriver(this.env, this.#kilnd));
    return {
      name: "default",
      driver: EMBEDDED_DRIVER,
      group,
      nodes: [node],
      isEmbedded: true,
      lastActivity: this.store.lastActivity("default"),
    };
  }

  /** All builders: those of the store, then the embedded one. */
  list(): Builder[] {
    const builders = this.store.list().map((group) => this.#builderOf(group));
    return builders.some(({ name }) => name === "default") ? builders : [...builders, this.embedded()];
  }

  #builderOf(group: NodeGroup): Builder {
    return {
      name: group.name,
      driver: group.driver,
      group,
      nodes: group.nodes.map(
        (node) => new BuilderNode(group.name, node, () => createDriver(group.driver, node)),
      ),
      isEmbedded: false,
      lastActivity: this.store.lastActivity(group.name),
    };
  }

  /** Proxy settings that `config.json` has for builds of this builder, as build arguments. */
  proxyArgs(): Map<string, string> {
    return proxyArgs(this.dockerConfig, dockerEndpoint(this.env, this.dockerConfig)?.host ?? "");
  }
}

/** @throws BuildError for a driver that Kiln doesn't have, by name. */
export function checkDriver(name: string): void {
  if (name === "remote") return;
  if (OTHER_DRIVERS.includes(name)) {
    throw new BuildError("unimplemented", `the driver ${JSON.stringify(name)} isn't supported by kiln yet`);
  }
  throw new BuildError("not_found", `failed to find driver ${JSON.stringify(name)}`);
}

function createDriver(name: string, node: StoredNode): NodeDriver {
  checkDriver(name);
  return createRemoteDriver(node);
}

function isName(name: string): boolean {
  try {
    validateName(name);
    return true;
  } catch {
    return false;
  }
}

/** Platforms of a flag's values, each a comma list; `local` is this machine's. */
export function parsePlatformList(texts: readonly string[], local: string): Platform[] {
  const platforms = texts
    .flatMap((text) => text.split(","))
    .map((text) => text.trim())
    .filter((text) => text !== "")
    .map((text) => {
      try {
        return normalizePlatform(parsePlatform(text === "local" ? local : text));
      } catch (error) {
        throw new BuildError("invalid_argument", errorMessage(error), { cause: error });
      }
    });
  return [...new Map(platforms.map((platform) => [formatPlatform(platform), platform])).values()];
}
