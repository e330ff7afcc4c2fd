import { AsyncLocalStorage } from "node:async_hooks";
import { Semaphore } from "@kiln/base";
import { type Authenticator, anonymous } from "./authenticator.ts";
import { type RegistryHost, type RegistryHostsConfig, registryHosts } from "./hosts.ts";
import type { Env } from "./proxy.ts";
import { RegistryClient } from "./registry-client.ts";
import { TokenAuth } from "./token-auth.ts";

/** Settings of a {@link Registries}. */
export interface RegistriesOptions {
  readonly hosts?: RegistryHostsConfig;
  /** Data connections per registry; one more serves JSON documents. Default 4. */
  readonly maxConcurrency?: number;
  readonly userAgent?: string;
  /** Where proxies come from. Default: none. */
  readonly env?: Env;
  readonly limits?: Partial<RegistryLimits>;
}

/** Bounds on waiting and trying again. Milliseconds. */
export interface RegistryLimits {
  readonly connectTimeoutMs: number;
  readonly headTimeoutMs: number;
  /** A download that delivers nothing for this long is taken up again elsewhere in the file. */
  readonly idleTimeoutMs: number;
  /** Tries of one request, or of a download without progress. */
  readonly maxAttempts: number;
  readonly retryDelayMs: number;
  /** Longest pause that a server's Retry-After can cause. */
  readonly maxRetryDelayMs: number;
}

const DEFAULT_LIMITS: RegistryLimits = {
  connectTimeoutMs: 30_000,
  headTimeoutMs: 60_000,
  idleTimeoutMs: 30_000,
  maxAttempts: 5,
  retryDelayMs: 500,
  maxRetryDelayMs: 60_000,
};

const DEFAULT_CONCURRENCY = 4;

/** Set while something holds a slot: what it fetches on the way must not wait for another one. */
const insideSlot = new AsyncLocalStorage<true>();

/** Connection slots of one registry: `data` ones, and one more for JSON documents. */
export interface RegistrySlots {
  readonly data: Semaphore;
  readonly all: Semaphore;
}

/**
 * Everything that talks to registries in one process: connections, configuration and limits are shared;
 * tokens are not, they belong to the {@link Authenticator} of each {@link RegistryClient}.
 */
export class Registries implements Disposable {
  readonly limits: RegistryLimits;
  readonly userAgent: string;
  readonly #options: RegistriesOptions;
  readonly #hosts = new Map<string, Promise<readonly RegistryHost[]>>();
  readonly #slots = new Map<string, RegistrySlots>();
  readonly #auths = new WeakMap<Authenticator, { readonly pull: TokenAuth; readonly push: TokenAuth }>();

  constructor(options: RegistriesOptions = {}) {
    this.#options = options;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.userAgent = options.userAgent ?? "buildkit/v0.33";
  }

  /**
   * A client that logs in as `authenticator`. `insecure` accepts any certificate and plain HTTP, for every
   * host (the exporter's `registry.insecure`).
   */
  client(
    authenticator: Authenticator = anonymous,
    opts: { readonly insecure?: boolean } = {},
  ): RegistryClient {
    return new RegistryClient(this, authenticator, opts.insecure ?? false);
  }

  /** Servers for a registry name, mirrors first. */
  hosts(domain: string, insecure: boolean): Promise<readonly RegistryHost[]> {
    const key = `${insecure ? "insecure" : "configured"} ${domain}`;
    let hosts = this.#hosts.get(key);
    if (!hosts) {
      const config: RegistryHostsConfig = insecure
        ? new Map([[domain, { insecure: true, http: true }]])
        : (this.#options.hosts ?? new Map());
      const env = this.#options.env;
      hosts = registryHosts(domain, config, {
        ...(env === undefined ? {} : { env }),
        connectTimeoutMs: this.limits.connectTimeoutMs,
        headTimeoutMs: this.limits.headTimeoutMs,
      });
      this.#hosts.set(key, hosts);
      hosts.catch(() => this.#hosts.delete(key));
    }
    return hosts;
  }

  /** Waits for a connection slot of a registry. JSON documents (`priority`) don't wait behind layers. */
  async acquire(domain: string, priority: boolean, signal?: AbortSignal): Promise<Disposable> {
    if (insideSlot.getStore()) return { [Symbol.dispose]: () => undefined };
    let slots = this.#slots.get(domain);
    if (!slots) {
      const size = this.#options.maxConcurrency ?? DEFAULT_CONCURRENCY;
      slots = { data: new Semaphore(size), all: new Semaphore(size > 0 ? size + 1 : size) };
      this.#slots.set(domain, slots);
    }
    const data = priority ? undefined : await slots.data.acquire(signal);
    try {
      const all = await slots.all.acquire(signal);
      return {
        [Symbol.dispose]() {
          all[Symbol.dispose]();
          data?.[Symbol.dispose]();
        },
      };
    } catch (error) {
      data?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Runs `work` with a slot; what it does inside (a push that reads from a registry) needs no other. */
  async withSlot<T>(
    domain: string,
    opts: { readonly priority: boolean; readonly signal?: AbortSignal | undefined },
    work: () => Promise<T>,
  ): Promise<T> {
    using _slot = await this.acquire(domain, opts.priority, opts.signal);
    return await insideSlot.run(true, work);
  }

  /** Tokens of an authenticator; those that may write are kept apart from those that only read. */
  auth(authenticator: Authenticator, push: boolean): TokenAuth {
    let auths = this.#auths.get(authenticator);
    if (!auths) {
      auths = { pull: new TokenAuth(authenticator), push: new TokenAuth(authenticator) };
      this.#auths.set(authenticator, auths);
    }
    return push ? auths.push : auths.pull;
  }

  [Symbol.dispose](): void {
    for (const hosts of this.#hosts.values()) {
      hosts.then(
        (list) => {
          for (const host of list) host.transport[Symbol.dispose]();
        },
        () => undefined,
      );
    }
    this.#hosts.clear();
  }
}
