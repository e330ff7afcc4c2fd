/** Docker's `config.json` and contexts, as far as builds need them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sha256Hex } from "@kiln/oci";
import { dockerConfigDir, type Env, isMissing } from "./config-dir.ts";
import { isRecord, parseObject } from "./node-group.ts";

/** The parts of `config.json` that Kiln reads. */
export interface DockerConfig {
  readonly directory: string;
  readonly auths: Readonly<Record<string, Record<string, unknown>>>;
  readonly credHelpers: Readonly<Record<string, string>>;
  readonly credsStore: string;
  readonly currentContext: string;
  readonly proxies: Readonly<Record<string, Record<string, unknown>>>;
  readonly pruneFilters: readonly string[];
}

/** Reads `config.json` of the environment's directory; a missing one is empty. */
export function readDockerConfig(env: Env): DockerConfig {
  return readDockerConfigIn(dockerConfigDir(env));
}

/** Reads `config.json` of a directory; a missing one is empty. */
export function readDockerConfigIn(directory: string): DockerConfig {
  const file = join(directory, "config.json");
  let data: Record<string, unknown> = {};
  try {
    data = parseObject(readFileSync(file, "utf8"), file);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return {
    directory,
    auths: recordsOf(data.auths),
    credHelpers: stringsOf(data.credHelpers),
    credsStore: typeof data.credsStore === "string" ? data.credsStore : "",
    currentContext: typeof data.currentContext === "string" ? data.currentContext : "",
    proxies: recordsOf(data.proxies),
    pruneFilters: Array.isArray(data.pruneFilters) ? data.pruneFilters.map(String) : [],
  };
}

/** Docker's default socket. */
export const DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock";

/** A place where a Docker Engine may be: the context's name and the address. */
export interface DockerEndpoint {
  readonly context: string;
  readonly host: string;
  /** The context takes any certificate of the server. */
  readonly skipsTlsVerify?: true;
}

/** The current Docker context, or the named one; undefined when there is no such context. */
export function dockerEndpoint(env: Env, config: DockerConfig, name = ""): DockerEndpoint | undefined {
  const context =
    name || (env.DOCKER_HOST ? "default" : env.DOCKER_CONTEXT || config.currentContext || "default");
  if (context === "default") return { context, host: env.DOCKER_HOST || DEFAULT_DOCKER_HOST };
  const file = join(config.directory, "contexts", "meta", sha256Hex(context), "meta.json");
  let data: Record<string, unknown>;
  try {
    data = parseObject(readFileSync(file, "utf8"), file);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  const endpoints = isRecord(data.Endpoints) ? data.Endpoints : {};
  const docker = isRecord(endpoints.docker) ? endpoints.docker : {};
  const host = String(docker.Host ?? DEFAULT_DOCKER_HOST);
  return { context, host, ...(docker.SkipTLSVerify === true ? { skipsTlsVerify: true } : {}) };
}

/** The key under which a builder is chosen: the context's name, for `default` its address. */
export function endpointKey(endpoint: DockerEndpoint): string {
  return endpoint.context === "default" ? endpoint.host : endpoint.context;
}

const PROXY_KEYS = {
  httpProxy: "HTTP_PROXY",
  httpsProxy: "HTTPS_PROXY",
  ftpProxy: "FTP_PROXY",
  noProxy: "NO_PROXY",
  allProxy: "ALL_PROXY",
} as const;

/** Build arguments for the proxies that `config.json` names for a host, in upper and lower case. */
export function proxyArgs(config: DockerConfig, host: string): Map<string, string> {
  const proxies = config.proxies[host] ?? config.proxies.default ?? {};
  const args = new Map<string, string>();
  for (const [key, name] of Object.entries(PROXY_KEYS)) {
    const value = proxies[key];
    if (typeof value !== "string" || value === "") continue;
    args.set(name, value);
    args.set(name.toLowerCase(), value);
  }
  return args;
}

function recordsOf(value: unknown): Record<string, Record<string, unknown>> {
  const out: Record<string, Record<string, unknown>> = Object.create(null);
  if (isRecord(value)) for (const [key, item] of Object.entries(value)) out[key] = isRecord(item) ? item : {};
  return out;
}

function stringsOf(value: unknown): Record<string, string> {
  const out: Record<string, string> = Object.create(null);
  if (isRecord(value)) for (const [key, item] of Object.entries(value)) out[key] = String(item);
  return out;
}
