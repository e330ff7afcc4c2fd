import { isIP, isIPv6 } from "node:net";
import type { ExecOp, HostIP, ProxyEnv } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { ExtraHost } from "@kiln/executor";
import { quoteGo } from "@kiln/formats";
import type { SessionGroup } from "@kiln/solver";
import { optionalSecret, type StepClients } from "./prepare-mounts.ts";

/** Search path of a step that isn't given one. */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Adds `name=value` unless the environment has the name. */
export function withDefaultEnv(env: readonly string[], name: string, value: string): string[] {
  return env.some((entry) => entry.startsWith(`${name}=`)) ? [...env] : [...env, `${name}=${value}`];
}

/** A proxy setting under both spellings of each name. */
function proxyEnv(proxy: ProxyEnv | undefined): string[] {
  if (proxy === undefined) return [];
  const settings: [string, string][] = [
    ["HTTP_PROXY", proxy.httpProxy],
    ["HTTPS_PROXY", proxy.httpsProxy],
    ["FTP_PROXY", proxy.ftpProxy],
    ["NO_PROXY", proxy.noProxy],
    ["ALL_PROXY", proxy.allProxy],
  ];
  return settings.flatMap(([name, value]) =>
    value === "" ? [] : [`${name}=${value}`, `${name.toLowerCase()}=${value}`],
  );
}

/** For whom secrets are asked. */
export interface SecretUser {
  readonly clients: StepClients;
  readonly sessions: SessionGroup;
  readonly signal: AbortSignal;
}

/**
 * The secrets that a process gets as variables. One that is optional and missing is an empty variable.
 *
 * @throws BuildError `not_found` for one that is missing.
 */
export async function secretEnv(wanted: ExecOp["secretenv"], user: SecretUser): Promise<string[]> {
  const env: string[] = [];
  for (const { ID, name, optional } of wanted) {
    if (ID === "") {
      throw new BuildError("invalid_argument", `secret ID missing for ${quoteGo(name)} environment variable`);
    }
    const value = await optionalSecret(user.clients, { ID, optional }, user);
    env.push(`${name}=${value === undefined ? "" : new TextDecoder().decode(value)}`);
  }
  return env;
}

/** The environment of a step: its own, the proxies', a search path, secrets; in this order. */
export async function stepEnv(op: ExecOp, user: SecretUser): Promise<string[]> {
  const env = [...(op.meta?.env ?? []), ...proxyEnv(op.meta?.proxyEnv)];
  return [...withDefaultEnv(env, "PATH", DEFAULT_PATH), ...(await secretEnv(op.secretenv, user))];
}

/** @throws BuildError `invalid_argument` (`failed to parse IP …`). */
export function parseExtraHosts(hosts: readonly HostIP[]): ExtraHost[] {
  return hosts.map(({ Host, IP }) => {
    if (isIP(IP) === 0) throw new BuildError("invalid_argument", `failed to parse IP ${IP}`);
    return { host: Host, ip: isIPv6(IP) ? canonicalIpv6(IP) : IP };
  });
}

/** The shortest form, as Go prints it. */
function canonicalIpv6(ip: string): string {
  return new URL(`http://[${ip}]/`).hostname.slice(1, -1);
}
