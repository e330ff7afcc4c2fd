import type { RegistryHostConfig } from "@kiln/registry";
import { lookUp } from "./parse-options.ts";

/** `[registry."host"]` tables (buildkit.md §1.5). */
export function registryConfig(file: Record<string, unknown>): Map<string, RegistryHostConfig> {
  const tables = lookUp(file, ["registry"]);
  const hosts = new Map<string, RegistryHostConfig>();
  if (typeof tables !== "object" || tables === null) return hosts;
  for (const [host, table] of Object.entries(tables)) {
    const list = (key: string): readonly string[] => {
      const value = lookUp(table, [key]);
      return Array.isArray(value) ? value.map(String) : [];
    };
    const flag = (key: string): { [k: string]: boolean } => {
      const value = lookUp(table, [key]);
      return typeof value === "boolean" ? { [key]: value } : {};
    };
    const pairs = lookUp(table, ["keypair"]);
    hosts.set(host, {
      mirrors: list("mirrors"),
      ca: list("ca"),
      tlsConfigDirs: list("tlsconfigdir"),
      keyPairs: (Array.isArray(pairs) ? pairs : []).map((pair: unknown) => ({
        key: String(lookUp(pair, ["key"]) ?? ""),
        cert: String(lookUp(pair, ["cert"]) ?? ""),
      })),
      ...flag("http"),
      ...flag("insecure"),
    });
  }
  return hosts;
}
