/** Names of the variables that tell programs of a proxy. */
const PROXY_NAMES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
const NO_PROXY_NAMES = ["NO_PROXY", "no_proxy"];
const NO_PROXY = "127.0.0.1,localhost,::1";

/** The variables for a proxy. */
export function proxyEnv(url: string): string[] {
  return [
    ...PROXY_NAMES.map((name) => `${name}=${url}`),
    ...NO_PROXY_NAMES.map((name) => `${name}=${NO_PROXY}`),
  ];
}

/** Variables that are for the daemon's proxy in place of the step's own. */
export function replaceProxyEnv(env: readonly string[], replacement: readonly string[]): string[] {
  const names = new Set(replacement.map((entry) => entry.split("=", 1)[0]));
  return [...env.filter((entry) => !names.has(entry.split("=", 1)[0])), ...replacement];
}

/** Those of `env` that tell of a proxy. */
export function proxyEnvOf(env: readonly string[]): string[] {
  const names = new Set([...PROXY_NAMES, ...NO_PROXY_NAMES]);
  return env.filter((entry) => names.has(entry.split("=", 1)[0] ?? ""));
}
