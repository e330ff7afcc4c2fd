import { compareBytes } from "@kiln/formats";
import { EnvList, type ProxyEnv } from "@kiln/llb";
import { formatPlatform, formatPlatformAll, type Platform } from "@kiln/oci";
import { equalFold } from "../base/go-text.ts";
import { withLocation } from "../base/problem.ts";
import type { ArgInstruction } from "../instructions/types.ts";
import { expand, type LexOptions } from "../shell/lex.ts";
import type { ArgInfo } from "./stage-state.ts";

/** ARGs that every Dockerfile has. */
export function automaticArgs(
  build: Platform,
  target: Platform,
  options: { readonly overrides: ReadonlyMap<string, string>; readonly stage: string },
): EnvList {
  const values: [string, string][] = [
    ["BUILDPLATFORM", formatPlatform(build)],
    ["BUILDOS", build.os],
    ["BUILDOSVERSION", build["os.version"] ?? ""],
    ["BUILDARCH", build.architecture],
    ["BUILDVARIANT", build.variant ?? ""],
    ["TARGETPLATFORM", formatPlatformAll(target)],
    ["TARGETOS", target.os],
    ["TARGETOSVERSION", target["os.version"] ?? ""],
    ["TARGETARCH", target.architecture],
    ["TARGETVARIANT", target.variant ?? ""],
    ["TARGETSTAGE", options.stage === "" ? "default" : options.stage],
  ];
  let args = EnvList.of();
  for (const [key, value] of values) args = args.set(key, options.overrides.get(key) ?? value);
  return args;
}

/** The ARGs before the first FROM, added to `args`. Throws a problem for a default that can't be expanded. */
export function globalArgs(
  args: EnvList,
  instructions: readonly ArgInstruction[],
  options: { readonly lex: LexOptions; readonly buildArgs: ReadonlyMap<string, string> },
): { args: EnvList; infos: Map<string, ArgInfo> } {
  let current = args;
  const infos = new Map<string, ArgInfo>();
  for (const instruction of instructions) {
    for (const definition of instruction.args) {
      const given = options.buildArgs.get(definition.key);
      let value = given ?? definition.value;
      let uses: ReadonlySet<string> = new Set();
      if (given === undefined && value !== undefined) {
        try {
          const expanded = expand(value, current, options.lex);
          value = expanded.text;
          uses = expanded.matched;
        } catch (error) {
          throw withLocation(error, instruction.location);
        }
        if (uses.has(definition.key)) {
          const before = infos.get(definition.key)?.uses ?? new Set();
          uses = uses.difference(new Set([definition.key])).union(before);
        }
      }
      if (value !== undefined) current = current.set(definition.key, value);
      infos.set(definition.key, {
        definition: { ...definition, value },
        value: value ?? "",
        uses,
        location: instruction.location,
      });
    }
  }
  return { args: current, infos };
}

const PROXIES = [
  ["http_proxy", "httpProxy"],
  ["https_proxy", "httpsProxy"],
  ["ftp_proxy", "ftpProxy"],
  ["no_proxy", "noProxy"],
  ["all_proxy", "allProxy"],
] as const;

/** Proxy settings among the build arguments, in any case; undefined when there are none. */
export function proxyEnvOf(buildArgs: ReadonlyMap<string, string>): ProxyEnv | undefined {
  const proxy: { -readonly [K in keyof ProxyEnv]: ProxyEnv[K] } = {};
  for (const key of [...buildArgs.keys()].sort(compareBytes)) {
    for (const [name, field] of PROXIES) if (equalFold(key, name)) proxy[field] = buildArgs.get(key);
  }
  return Object.keys(proxy).length === 0 ? undefined : proxy;
}
