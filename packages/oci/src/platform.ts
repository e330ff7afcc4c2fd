import { BuildError } from "@kiln/base";

/**
 * Operating system and CPU that an image is for. Field names are those of the OCI JSON. Rules are those of
 * github.com/containerd/platforms 1.0.
 */
export interface Platform {
  readonly architecture: string;
  readonly os: string;
  readonly "os.version"?: string | undefined;
  readonly "os.features"?: readonly string[] | undefined;
  readonly variant?: string | undefined;
}

/** What a specifier with one part is completed from. */
export interface HostPlatform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

const DEFAULT_HOST: HostPlatform = { os: "linux", architecture: "amd64" };
const COMPONENT = /^[A-Za-z0-9_.-]+$/;
const OS = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$/;
const MAX_LENGTH = 1024;

const KNOWN_OS: ReadonlySet<string> = new Set(
  "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos".split(
    " ",
  ),
);
const KNOWN_ARCH: ReadonlySet<string> = new Set(
  "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm".split(
    " ",
  ),
);

/**
 * Reads `os[(version[+feature…])]/arch[/variant]`, `os` or `arch`. What one part leaves open comes from
 * `host`. The result is normalised as containerd does it (`linux/arm64/v8` keeps `v8`).
 */
export function parsePlatform(specifier: string, host: HostPlatform = DEFAULT_HOST): Platform {
  if (specifier.includes("*"))
    throw invalid(`${quote(specifier)}: wildcards not yet supported: invalid argument`);
  const parts = specifier.slice(0, MAX_LENGTH).split("/");
  if (parts.length > 4) parts.splice(3, parts.length - 3, parts.slice(3).join("/"));
  const os = parseOs(parts[0]!, specifier);
  for (const part of parts.slice(1)) {
    if (!COMPONENT.test(part)) {
      throw invalid(
        `${quote(part)} is an invalid component of ${quote(specifier)}: platform specifier component must match ${quote(COMPONENT.source)}: invalid argument`,
      );
    }
  }
  switch (parts.length) {
    case 1:
      return parseSingle(specifier, os, host);
    case 2: {
      const [architecture, variant] = normalizeArch(parts[1]!, "");
      return build(os, architecture, architecture === "arm" && variant === "v7" ? "" : variant);
    }
    case 3: {
      const [architecture, variant] = normalizeArch(parts[1]!, parts[2]!);
      return build(os, architecture, architecture === "arm64" && variant === "" ? "v8" : variant);
    }
    default:
      throw invalid(`${quote(specifier)}: cannot parse platform specifier: invalid argument`);
  }
}

interface OsPart {
  readonly os: string;
  readonly version: string;
  readonly features: readonly string[];
}

function parseOs(part: string, specifier: string): OsPart {
  const match = OS.exec(part);
  if (!match) {
    throw invalid(
      `${quote(part)} is an invalid OS component of ${quote(specifier)}: OSAndVersion specifier component must match ${quote(OS.source)}: invalid argument`,
    );
  }
  const features = (match[3] ?? "").split("+").filter((raw) => raw !== "");
  return {
    os: normalizeOs(match[1]!),
    version: decodeOption(match[2] ?? "", specifier),
    features: features.map((raw) => decodeOption(raw, specifier)).filter((feature) => feature !== ""),
  };
}

function parseSingle(specifier: string, os: OsPart, host: HostPlatform): Platform {
  if (KNOWN_OS.has(os.os)) {
    const variant = host.architecture === "arm" && host.variant !== "v7" ? (host.variant ?? "") : "";
    return build(os, host.architecture, variant);
  }
  const [architecture, variant] = normalizeArch(specifier, "");
  if (KNOWN_ARCH.has(architecture)) {
    const folded = architecture === "arm" && variant === "v7" ? "" : variant;
    return build({ ...os, os: host.os }, architecture, folded);
  }
  throw invalid(`${quote(specifier)}: unknown operating system or architecture: invalid argument`);
}

function build(os: OsPart, architecture: string, variant: string): Platform {
  return {
    architecture,
    os: os.os,
    ...(os.version === "" ? {} : { "os.version": os.version }),
    ...(os.features.length === 0 ? {} : { "os.features": os.features }),
    ...(variant === "" ? {} : { variant }),
  };
}

/** `os/arch[/variant]`; `unknown` without an operating system. */
export function formatPlatform(platform: Platform): string {
  if (platform.os === "") return "unknown";
  return [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/");
}

/** {@link formatPlatform} with version and features: `windows(10.0.17763+win32k)/amd64`. */
export function formatPlatformAll(platform: Platform): string {
  if (platform.os === "") return "unknown";
  const version = encodeOption(platform["os.version"] ?? "");
  const features = [...new Set(platform["os.features"] ?? [])].filter(Boolean).sort();
  const options = version + features.map((feature) => `+${encodeOption(feature)}`).join("");
  const os = options === "" ? platform.os : `${platform.os}(${options})`;
  return [os, platform.architecture, platform.variant].filter(Boolean).join("/");
}

/** Canonical names: `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `arm` is `arm/v7`. */
export function normalizePlatform(platform: Platform): Platform {
  const [architecture, variant] = normalizeArch(platform.architecture, platform.variant ?? "");
  const features = [...new Set(platform["os.features"] ?? [])].sort();
  return build(
    { os: normalizeOs(platform.os), version: platform["os.version"] ?? "", features },
    architecture,
    variant,
  );
}

function normalizeOs(os: string): string {
  if (os === "") return DEFAULT_HOST.os;
  const lower = os.toLowerCase();
  return lower === "macos" ? "darwin" : lower;
}

function normalizeArch(arch: string, variant: string): [string, string] {
  const a = arch.toLowerCase();
  const v = variant.toLowerCase();
  switch (a) {
    case "i386":
      return ["386", ""];
    case "x86_64":
    case "x86-64":
    case "amd64":
      return ["amd64", v === "v1" ? "" : v];
    case "aarch64":
    case "arm64":
      if (v === "8" || v === "v8" || v === "v8.0") return ["arm64", ""];
      return ["arm64", v === "9" || v === "9.0" || v === "v9.0" ? "v9" : v];
    case "armhf":
      return ["arm", "v7"];
    case "armel":
      return ["arm", "v6"];
    case "arm":
      if (v === "" || v === "7") return ["arm", "v7"];
      return ["arm", v === "5" || v === "6" || v === "8" ? `v${v}` : v];
    default:
      return [a, v];
  }
}

function encodeOption(value: string): string {
  return value.replace(/[%+()/]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function decodeOption(value: string, specifier: string): string {
  if (!value.includes("%")) return value;
  try {
    return decodeURIComponent(value);
  } catch (error) {
    throw new BuildError(
      "invalid_argument",
      `${quote(specifier)} has an invalid OS version ${quote(value)}: invalid URL escape`,
      { cause: error },
    );
  }
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
