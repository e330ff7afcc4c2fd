import { BlockList, isIP } from "node:net";
import { hostWithoutPort, isLocalHost } from "./address-guard.ts";

/** Environment variables, as in `process.env`. */
export type Env = Readonly<Record<string, string | undefined>>;

/**
 * The proxy for a URL by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (either case), with Go's rules: loopback
 * is never proxied; `NO_PROXY` has names (with their subdomains; `.name` for subdomains only), addresses,
 * CIDR blocks, ports, and `*`.
 */
export function proxyForUrl(url: URL, env: Env): string | undefined {
  const get = (name: string): string => env[name] || env[name.toLowerCase()] || "";
  // A CGI server sets HTTP_PROXY from the request's Proxy header; Go ignores it there, too.
  const cgi = env.REQUEST_METHOD !== undefined && !env.http_proxy;
  const proxy = url.protocol === "https:" ? get("HTTPS_PROXY") : cgi ? "" : get("HTTP_PROXY");
  if (proxy === "" || isLocalHost(url.host) || bypasses(url, get("NO_PROXY"))) return undefined;
  return proxy.includes("://") ? proxy : `http://${proxy}`;
}

function bypasses(url: URL, noProxy: string): boolean {
  const host = hostWithoutPort(url.host).toLowerCase().replace(/\.$/, "");
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  return noProxy.split(",").some((raw) => {
    const entry = raw.trim().toLowerCase();
    return entry === "*" || (entry !== "" && matchesEntry(entry, host, port));
  });
}

function matchesEntry(entry: string, host: string, port: string): boolean {
  const family = isIP(host);
  const cidr = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry);
  if (cidr) {
    const kind = isIP(cidr[1]!);
    if (kind === 0 || kind !== family || Number(cidr[2]) > (kind === 4 ? 32 : 128)) return false;
    const list = new BlockList();
    const type = kind === 4 ? "ipv4" : "ipv6";
    list.addSubnet(cidr[1]!, Number(cidr[2]), type);
    return list.check(host, type);
  }
  const withPort = isIP(entry) === 6 ? undefined : /^(.+):(\d+)$/.exec(entry);
  if (withPort && withPort[2] !== port) return false;
  const name = hostWithoutPort(withPort?.[1] ?? entry).replace(/^\*\./, ".");
  if (family !== 0) return host === name;
  if (name.startsWith(".")) return host.endsWith(name);
  return host === name || host.endsWith(`.${name}`);
}
