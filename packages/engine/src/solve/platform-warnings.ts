import { BuildError, errorMessage } from "@kiln/base";
import {
  formatPlatform,
  formatPlatformAll,
  normalizePlatform,
  type Platform,
  parsePlatform,
  strictPlatform,
} from "@kiln/oci";
import { hostPlatform } from "../worker/host-platform.ts";
import type { BuildResult } from "./build-results.ts";
import { PLATFORMS_KEY, resultPlatforms } from "./result-platforms.ts";

/**
 * Warnings for a result that isn't for the platforms that were asked for (buildkit `exporter/verifier`).
 *
 * @throws BuildError for trees by key without a list of platforms.
 */
export function platformWarnings<TRef>(
  result: BuildResult<TRef>,
  frontendAttrs: ReadonlyMap<string, string>,
): readonly string[] {
  const keyed = (result.refs?.size ?? 0) > 0;
  if (!result.metadata.has(PLATFORMS_KEY)) {
    if (keyed)
      throw new BuildError(
        "invalid_argument",
        "build result contains multiple refs without platforms mapping",
      );
    if (result.ref === undefined) return [];
  }
  const got = resultPlatforms(result.metadata).map((item) => normalizePlatform(item.platform));
  const requested = frontendAttrs.get("platform")?.split(",") ?? [
    formatPlatform(normalizePlatform(hostPlatform())),
  ];
  const { wanted, problems } = parseRequested(requested);
  if (problems.length > 0) return problems;
  const [onlyGot] = got;
  if (wanted.size === 1 && got.length === 1 && onlyGot !== undefined) {
    return matchesOne(wanted, onlyGot)
      ? []
      : [
          `Requested platform ${JSON.stringify(requested[0])} does not match result platform ${JSON.stringify(formatPlatformAll(onlyGot))}`,
        ];
  }
  if (!keyed && wanted.size > 1) return ["Multiple platforms requested but result is not multi-platform"];
  const fits = (platform: Platform): boolean =>
    wanted.has(formatPlatformAll(platform)) ||
    [...wanted.values()].some((want) => strictPlatform(want).match(platform));
  if (wanted.size === got.length && got.every(fits)) return [];
  const text = (platforms: Iterable<Platform>): string =>
    [...platforms].map(formatPlatformAll).sort().join(",");
  return [`Requested platforms ${text(wanted.values())} do not match result platforms ${text(got)}`];
}

function parseRequested(requested: readonly string[]): { wanted: Map<string, Platform>; problems: string[] } {
  const wanted = new Map<string, Platform>();
  const problems: string[] = [];
  for (const text of requested) {
    try {
      const platform = normalizePlatform(parsePlatform(text, hostPlatform()));
      const key = formatPlatformAll(platform);
      if (wanted.has(key)) problems.push(`Duplicate platform result requested ${JSON.stringify(text)}`);
      wanted.set(key, platform);
    } catch (error) {
      problems.push(`Invalid platform result requested ${JSON.stringify(text)}: ${errorMessage(error)}`);
    }
  }
  return { wanted, problems };
}

/** A version of the OS in the result alone is no mismatch. */
function matchesOne(wanted: ReadonlyMap<string, Platform>, got: Platform): boolean {
  if (wanted.has(formatPlatformAll(got))) return true;
  const [want] = wanted.values();
  const { "os.version": _version, ...bare } = got;
  return want?.["os.version"] === undefined && wanted.has(formatPlatformAll(bare));
}
