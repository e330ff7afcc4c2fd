import { normalizePlatform, type Platform } from "./platform.ts";

/** Says which platforms will do, and which of two is the better one. */
export interface PlatformMatcher {
  /** True when an image for `platform` will do. */
  match(platform: Platform): boolean;
  /** True when `a` is strictly better than `b`; a strict weak order. */
  less(a: Platform, b: Platform): boolean;
}

/** Matches the platform and everything that its CPU also runs, best first (containerd's `Only`). */
export function onlyPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms(platformVector(normalizePlatform(platform)));
}

/** Matches the platform alone, after normalisation (containerd's `OnlyStrict`). */
export function strictPlatform(platform: Platform): PlatformMatcher {
  return orderedPlatforms([normalizePlatform(platform)]);
}

/** Matches any of `platforms`, without preference. */
export function anyPlatform(platforms: readonly Platform[]): PlatformMatcher {
  const matchers = platforms.map(matcherFor);
  const match = (p: Platform): boolean => matchers.some((m) => m(p));
  return { match, less: (a, b) => match(a) && !match(b) };
}

/** Matches everything. */
export const allPlatforms: PlatformMatcher = { match: () => true, less: () => false };

/** Matches `platforms`, earlier ones first (containerd's `Ordered`). */
export function orderedPlatforms(platforms: readonly Platform[]): PlatformMatcher {
  const matchers = platforms.map(matcherFor);
  return {
    match: (p) => matchers.some((m) => m(p)),
    less: (a, b) => orderedLess(matchers, a, b),
  };
}

function orderedLess(matchers: readonly Match[], a: Platform, b: Platform): boolean {
  const featuresA = a["os.features"]?.length ?? 0;
  const featuresB = b["os.features"]?.length ?? 0;
  for (const m of matchers) {
    const inA = m(a);
    const inB = m(b);
    if (inA && inB && featuresA !== featuresB) return featuresA > featuresB;
    if (inA || inB) return inA && !inB;
  }
  if (featuresA === 0 && featuresB === 0) return false;
  return orderedLess(matchers, { ...a, "os.features": undefined }, { ...b, "os.features": undefined });
}

/** True when an image for `candidate` runs on `wanted` as it is (normalised equality). */
export function platformsEqual(wanted: Platform, candidate: Platform): boolean {
  return matcherFor(wanted)(candidate);
}

/** Stable sort of `items` by `matcher`, best first; those that don't match go last. */
export function sortByPlatform<T>(
  items: readonly T[],
  matcher: PlatformMatcher,
  platformOf: (item: T) => Platform | undefined,
): T[] {
  return items.toSorted((x, y) => {
    const a = platformOf(x);
    const b = platformOf(y);
    if (a === undefined || b === undefined) return a === b ? 0 : a !== undefined ? -1 : 1;
    return matcher.less(a, b) ? -1 : matcher.less(b, a) ? 1 : 0;
  });
}

const ARM64_VERSIONS: ReadonlyMap<string, readonly (readonly [major: number, minor: number])[]> = new Map(
  Array.from({ length: 10 }, (_, minor) => minor).flatMap((minor) => {
    const v8: [string, [number, number][]] = [`v8.${minor}`, [[8, minor]]];
    const v9: [string, [number, number][]] = [
      `v9.${minor}`,
      [
        [9, minor],
        [8, Math.min(minor + 5, 9)],
      ],
    ];
    const entries = minor <= 7 ? [v8, v9] : [v8];
    return minor === 0
      ? [...entries, ...entries.map(([name, v]): typeof v8 => [name.slice(0, 2), v])]
      : entries;
  }),
);

/** The platform, then those of images that it also runs, best first. */
export function platformVector(platform: Platform): readonly Platform[] {
  const { architecture, variant = "" } = platform;
  const as = (arch: string, v: string): Platform => ({
    ...platform,
    architecture: arch,
    variant: v === "" ? undefined : v,
  });
  switch (architecture) {
    case "amd64":
      return [platform, ...below(variant, 1).map((v) => as("amd64", v)), as("386", "")];
    case "arm":
      return [platform, ...below(variant, 5).map((v) => as("arm", v))];
    case "arm64": {
      const versions = ARM64_VERSIONS.get(variant === "" ? "v8" : variant) ?? [];
      const own = versions.flatMap(([major, minor]) =>
        Array.from({ length: minor + 1 }, (_, i) => minor - i).map((m) =>
          as("arm64", m === 0 ? `v${major}` : `v${major}.${m}`),
        ),
      );
      const arm = /^v[89]/.test(variant) || variant === "" ? "v8" : variant;
      return [...own, ...platformVector(as("arm", arm))];
    }
    default:
      return [platform];
  }
}

/** `v3` over 1 gives `v2`, `v1`. Nothing when the variant isn't a number. */
function below(variant: string, lowest: number): string[] {
  const digits = variant.startsWith("v") ? variant.slice(1) : variant;
  if (!/^\d{1,2}$/.test(digits)) return [];
  const found: string[] = [];
  for (let v = Number(digits) - 1; v >= lowest; v--) found.push(`v${v}`);
  return found;
}

type Match = (platform: Platform) => boolean;

function matcherFor(platform: Platform): Match {
  const want = normalizePlatform(platform);
  const windows = platform.os === "windows";
  const version = windows ? windowsVersion(platform["os.version"] ?? "") : undefined;
  return (candidate) => {
    const p = normalizePlatform(candidate);
    if (p.os !== want.os || p.architecture !== want.architecture) return false;
    if ((p.variant ?? "") !== (want.variant ?? "")) return false;
    if (version && !matchesWindowsVersion(version, candidate["os.version"] ?? "")) return false;
    const offered = want["os.features"] ?? [];
    const needed = (p["os.features"] ?? []).filter((feature) => !(windows && feature === "win32k"));
    return needed.every((feature) => offered.includes(feature));
  };
}

interface WindowsVersion {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

/** Long-term releases whose containers later hosts run: Server 2022 and 2025. */
const LTSC_BUILDS = [20348, 26100];

function windowsVersion(text: string): WindowsVersion {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\.|$)/.exec(text);
  const [major, minor, build] = match ? [Number(match[1]), Number(match[2]), Number(match[3])] : [0, 0, 0];
  if (major > 255 || minor > 255 || build > 65535) return { major: 0, minor: 0, build: 0 };
  return { major, minor, build };
}

function matchesWindowsVersion(host: WindowsVersion, text: string): boolean {
  if ((host.major === 0 && host.minor === 0 && host.build === 0) || text === "") return true;
  const guest = windowsVersion(text);
  if (guest.major !== host.major || guest.minor !== host.minor) return false;
  if (host.build < LTSC_BUILDS[0]!) return host.build === guest.build;
  const generation = LTSC_BUILDS.findLastIndex((build) => host.build >= build);
  const floor = LTSC_BUILDS[Math.max(0, generation - 1)]!;
  return floor <= guest.build && guest.build <= host.build;
}
