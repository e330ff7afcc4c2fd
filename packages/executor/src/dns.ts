import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import type { ExtraHost } from "./executor.ts";
import { isMissing } from "./root-dir.ts";

/** The daemon's `[dns]` section; lists that aren't empty replace what the machine has. */
export interface DnsConfig {
  readonly nameservers: readonly string[];
  readonly options: readonly string[];
  readonly searchDomains: readonly string[];
}

/** A resolv.conf, taken apart. */
interface ResolvConf {
  nameservers: string[];
  search: string[];
  options: string[];
  readonly other: string[];
}

/** Name of a container that isn't given one. */
export const DEFAULT_HOSTNAME = "buildkitsandbox";

const MACHINE_FILE = "/etc/resolv.conf";
/** What systemd-resolved generates for those who can't reach its own server on the loopback device. */
const SYSTEMD_FILE = "/run/systemd/resolve/resolv.conf";
const SYSTEMD_SERVER = "127.0.0.53";
const DEFAULT_SERVERS = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/** Reads a resolv.conf: unknown directives are kept, invalid servers dropped, the last search list counts. */
function parseResolvConf(text: string): ResolvConf {
  const conf: ResolvConf = { nameservers: [], search: [], options: [], other: [] };
  for (const line of text.split("\n")) {
    if (/^[#;]/.test(line)) continue;
    const [directive, ...values] = line.trim().split(/\s+/);
    if (!directive) continue;
    const [first] = values;
    if (directive === "nameserver") {
      if (first !== undefined && isIP(first) !== 0) conf.nameservers.push(first);
    } else if (directive === "domain" || directive === "search") {
      if (first !== undefined) conf.search = values;
    } else if (directive === "options") {
      conf.options.push(...values);
    } else {
      conf.other.push(line);
    }
  }
  return conf;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return "";
    throw error;
  }
}

function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1" || /^::ffff:127\./i.test(address);
}

/**
 * The resolv.conf of a container, from the machine's. With a network namespace of its own, servers on the
 * loopback device are left out, and public ones used when none is left; `dns` replaces parts.
 *
 * @throws BuildError `invalid_argument` for a server that isn't an address.
 */
export function containerResolvConf(
  machine: string,
  dns: DnsConfig | undefined,
  hostNetwork: boolean,
): string {
  const conf = parseResolvConf(machine);
  const overridden = dns !== undefined && dns.nameservers.length > 0;
  if (dns && overridden) {
    const bad = dns.nameservers.find((address) => isIP(address) === 0);
    if (bad !== undefined)
      throw new BuildError("invalid_argument", `bad nameserver address: ${JSON.stringify(bad)}`);
    conf.nameservers = [...dns.nameservers];
  }
  if (dns && dns.searchDomains.length > 0) conf.search = dns.searchDomains.filter((domain) => domain !== ".");
  if (dns && dns.options.length > 0) conf.options = [...dns.options];
  if (!overridden && (!hostNetwork || conf.nameservers.length === 0)) {
    conf.nameservers = conf.nameservers.filter((address) => !isLoopback(address));
    if (conf.nameservers.length === 0) conf.nameservers = DEFAULT_SERVERS;
  }
  const lines = conf.nameservers.map((address) => `nameserver ${address}`);
  if (conf.search.length > 0) lines.push(`search ${conf.search.join(" ")}`);
  if (conf.options.length > 0) lines.push(`options ${conf.options.join(" ")}`);
  return [...lines, ...conf.other].map((line) => `${line}\n`).join("");
}

/** The hosts file of a container. */
export function containerHosts(hostname: string, extraHosts: readonly ExtraHost[]): string {
  const own = [
    `127.0.0.1\tlocalhost ${hostname || DEFAULT_HOSTNAME}`,
    "::1\tlocalhost ip6-localhost ip6-loopback",
  ];
  return [...own, ...extraHosts.map(({ host, ip }) => `${ip}\t${host}`)].map((line) => `${line}\n`).join("");
}

/** Keeps the generated files of containers in a directory, made again when their source is newer. */
export class NetworkFiles {
  readonly #dir: string;
  readonly #dns: DnsConfig | undefined;
  readonly #madeFrom = new Map<string, number>();

  constructor(dir: string, dns: DnsConfig | undefined) {
    this.#dir = dir;
    this.#dns = dns;
  }

  /** Path of the resolv.conf for a container. */
  resolvConf(hostNetwork: boolean): string {
    const path = join(this.#dir, hostNetwork ? "resolv-host.conf" : "resolv.conf");
    const source = hostNetwork ? MACHINE_FILE : sandboxSource();
    const changedMs = mtimeOf(source);
    if (this.#madeFrom.get(path) !== changedMs) {
      this.#write(path, containerResolvConf(readText(source), this.#dns, hostNetwork));
      this.#madeFrom.set(path, changedMs);
    }
    return path;
  }

  /** Path of the hosts file for a container; dispose of it when that has ended. */
  hosts(
    id: string,
    hostname: string,
    extraHosts: readonly ExtraHost[],
  ): Disposable & { readonly path: string } {
    const shared = extraHosts.length === 0 && (hostname === "" || hostname === DEFAULT_HOSTNAME);
    const path = join(this.#dir, shared ? "hosts" : `hosts.${id}`);
    if (!shared || !this.#madeFrom.has(path)) {
      this.#write(path, containerHosts(hostname, extraHosts));
      if (shared) this.#madeFrom.set(path, 0);
    }
    return { path, [Symbol.dispose]: () => (shared ? undefined : rmSync(path, { force: true })) };
  }

  #write(path: string, text: string): void {
    writeFileSync(`${path}.tmp`, text, { mode: 0o644 });
    renameSync(`${path}.tmp`, path);
  }
}

function sandboxSource(): string {
  const { nameservers } = parseResolvConf(readText(MACHINE_FILE));
  return nameservers.length === 1 && nameservers[0] === SYSTEMD_SERVER ? SYSTEMD_FILE : MACHINE_FILE;
}

function mtimeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
