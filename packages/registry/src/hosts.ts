import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path/posix";
import { BuildError, codeOfNodeError } from "@kiln/base";
import { isLocalHost } from "./address-guard.ts";
import { HttpTransport, type TlsOptions } from "./http-transport.ts";
import type { Env } from "./proxy.ts";

/** `[registry."host"]` of buildkitd.toml. Files are named by path. */
export interface RegistryHostConfig {
  /** `host` or `host/prefix`, tried before the registry itself, for reading only. */
  readonly mirrors?: readonly string[];
  readonly http?: boolean;
  readonly insecure?: boolean;
  readonly ca?: readonly string[];
  readonly keyPairs?: readonly { readonly cert: string; readonly key: string }[];
  /** Folders as Docker's `certs.d/<host>`: `*.crt` roots, `*.cert` with `*.key`. */
  readonly tlsConfigDirs?: readonly string[];
}

/** Configuration by host name. */
export type RegistryHostsConfig = ReadonlyMap<string, RegistryHostConfig>;

/** One server for a registry. */
export interface RegistryHost {
  readonly scheme: "http" | "https";
  /** Host and port. */
  readonly host: string;
  /** `/v2` or `/v2/<prefix>`. */
  readonly path: string;
  readonly canPush: boolean;
  /** True for mirrors: they are told the registry's name (`ns`). */
  readonly isProxy: boolean;
  readonly transport: HttpTransport;
}

/** Environment and settings that all hosts share. */
export interface HostsOptions {
  readonly env?: Env;
  readonly connectTimeoutMs?: number;
  readonly headTimeoutMs?: number;
}

/**
 * The servers for a registry name, mirrors first (BuildKit's `NewRegistryConfig`). Docker Hub is
 * `registry-1.docker.io`; an unconfigured localhost is plain HTTP.
 */
export async function registryHosts(
  domain: string,
  config: RegistryHostsConfig,
  options: HostsOptions = {},
): Promise<readonly RegistryHost[]> {
  const own = config.get(domain);
  const hosts: RegistryHost[] = [];
  for (const raw of own?.mirrors ?? []) {
    const mirror = raw.replace(/^https?:\/\//, "");
    const slash = mirror.indexOf("/");
    const host = slash < 0 ? mirror : mirror.slice(0, slash);
    const prefix = slash < 0 ? "" : mirror.slice(slash + 1);
    hosts.push(
      await createHost(
        { host, path: join("/v2", prefix), canPush: false, isProxy: host !== domain },
        config.get(host),
        options,
      ),
    );
  }
  const host = domain === "docker.io" ? "registry-1.docker.io" : domain;
  hosts.push(await createHost({ host, path: "/v2", canPush: true, isProxy: false }, own, options));
  return hosts;
}

async function createHost(
  base: Pick<RegistryHost, "host" | "path" | "canPush" | "isProxy">,
  config: RegistryHostConfig | undefined,
  options: HostsOptions,
): Promise<RegistryHost> {
  const plain = config?.http ?? isLocalHost(base.host);
  const insecure = config?.insecure ?? false;
  const tls = await loadTls(config, insecure);
  const transport = new HttpTransport({ ...options, tls, plainFallback: insecure && plain });
  return { ...base, scheme: plain && !insecure ? "http" : "https", transport };
}

async function loadTls(config: RegistryHostConfig | undefined, insecure: boolean): Promise<TlsOptions> {
  const caFiles = [...(config?.ca ?? [])];
  const pairFiles = [...(config?.keyPairs ?? [])];
  for (const dir of config?.tlsConfigDirs ?? []) {
    for (const name of (await listDir(dir)).sort()) {
      if (name.endsWith(".crt")) caFiles.push(join(dir, name));
      if (name.endsWith(".cert")) {
        pairFiles.push({ cert: join(dir, name), key: join(dir, name.replace(/\.cert$/, ".key")) });
      }
    }
  }
  const ca = await Promise.all(caFiles.map((file) => readPem(file, "failed to read")));
  const keyPairs = await Promise.all(
    pairFiles.map(async ({ cert, key }) => ({
      cert: await readPem(cert, "failed to load keypair for"),
      key: await readPem(key, "failed to load keypair for"),
    })),
  );
  return { ca, keyPairs, insecure };
}

async function listDir(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "ENOENT" || code === "EACCES" || code === "EPERM") return [];
    throw new BuildError(codeOfNodeError(error), `failed to read ${dir}`, { cause: error });
  }
}

async function readPem(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new BuildError(codeOfNodeError(error), `${what} ${file}`, { cause: error });
  }
}
