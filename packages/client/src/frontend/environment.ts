import type { FrontendWorker } from "@kiln/dockerfile";
import { normalizePlatform, type Platform } from "@kiln/oci";

const OPTION_PREFIX = "BUILDKIT_FRONTEND_OPT_";
/** Node's names of CPUs in the words of image platforms. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "amd64",
  ia32: "386",
  ppc64: "ppc64le",
  mipsel: "mipsle",
};

/** What a daemon tells a frontend that it starts. */
export interface FrontendEnvironment {
  readonly opts: ReadonlyMap<string, string>;
  readonly sessionId: string;
  readonly workers: readonly FrontendWorker[];
  /** Name of the program that BuildKit is part of: `buildkit`, `docker`. */
  readonly product: string;
  /** Platform of this machine. */
  readonly defaultPlatform: Platform;
}

/** Reads a frontend's environment. What can't be read is as good as absent, as in BuildKit's own client. */
export function readFrontendEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): FrontendEnvironment {
  const opts = new Map<string, string>();
  for (const [name, option] of Object.entries(env)) {
    if (!name.startsWith(OPTION_PREFIX) || option === undefined) continue;
    const at = option.indexOf("=");
    opts.set(at < 0 ? option : option.slice(0, at), at < 0 ? "" : option.slice(at + 1));
  }
  return {
    opts,
    sessionId: env.BUILDKIT_SESSION_ID ?? "",
    workers: readWorkers(env.BUILDKIT_WORKERS ?? ""),
    product: env.BUILDKIT_EXPORTEDPRODUCT ?? "",
    defaultPlatform: normalizePlatform({
      os: process.platform === "win32" ? "windows" : process.platform,
      architecture: ARCHITECTURES[process.arch] ?? process.arch,
    }),
  };
}

function readWorkers(text: string): FrontendWorker[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return [];
  }
  if (!Array.isArray(parsed)) return [];
  return parsed.map((worker: { id?: unknown; platforms?: unknown } | null) => ({
    id: String(worker?.id ?? ""),
    platforms: Array.isArray(worker?.platforms) ? worker.platforms.flatMap(readPlatform) : [],
  }));
}

function readPlatform(value: unknown): Platform[] {
  if (typeof value !== "object" || value === null) return [];
  const fields = value as Readonly<Record<string, unknown>>;
  if (typeof fields.os !== "string" || typeof fields.architecture !== "string") return [];
  const version = fields["os.version"];
  const features = fields["os.features"];
  const platform: Platform = {
    os: fields.os,
    architecture: fields.architecture,
    ...(typeof fields.variant === "string" ? { variant: fields.variant } : {}),
    ...(typeof version === "string" ? { "os.version": version } : {}),
    ...(Array.isArray(features) ? { "os.features": features.map(String) } : {}),
  };
  return [platform];
}
