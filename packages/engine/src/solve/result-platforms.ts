import { BuildError, errorMessage } from "@kiln/base";
import { formatPlatformAll, normalizePlatform, type Platform } from "@kiln/oci";
import { hostPlatform } from "../worker/host-platform.ts";

/** A key of a result and what platform its tree is for. */
export interface ResultPlatform {
  readonly id: string;
  readonly platform: Platform;
}

export const PLATFORMS_KEY = "refs.platforms";
export const IMAGE_CONFIG_KEY = "containerimage.config";

/** Platforms in one result; more are refused. */
const MAX_PLATFORMS = 1_000;

/**
 * The platforms of a result from its metadata: the frontend's list, or that of the single image's config,
 * or the machine's own.
 *
 * @throws BuildError `invalid_argument` for a list that is no list.
 */
export function resultPlatforms(metadata: ReadonlyMap<string, Uint8Array>): readonly ResultPlatform[] {
  const list = metadata.get(PLATFORMS_KEY);
  if (list !== undefined) return parseList(list);
  const config = metadata.get(IMAGE_CONFIG_KEY);
  const platform = (config === undefined ? undefined : platformOfConfig(config)) ?? hostPlatform();
  const normal = normalizePlatform(platform);
  return [{ id: formatPlatformAll(normal), platform: normal }];
}

function parseList(bytes: Uint8Array): ResultPlatform[] {
  const parsed = parseJson(bytes, "failed to parse platforms passed to provenance processor");
  const items = isRecord(parsed) && Array.isArray(parsed["Platforms"]) ? parsed["Platforms"] : [];
  if (items.length === 0) throw invalid("invalid empty platforms index for exporter");
  if (items.length > MAX_PLATFORMS) throw invalid(`too many platforms in result: ${items.length}`);
  return items.map((item: unknown, at) => {
    const platform = isRecord(item) ? platformOfJson(item["Platform"]) : undefined;
    const id = isRecord(item) ? item["ID"] : undefined;
    if (typeof id !== "string" || id === "") throw invalid(`invalid empty platform key for exporter`);
    if (platform === undefined) throw invalid(`invalid platform value ${at} for exporter`);
    return { id, platform: normalizePlatform(platform) };
  });
}

function platformOfConfig(bytes: Uint8Array): Platform | undefined {
  const config = parseJson(bytes, "failed to parse image config");
  if (isRecord(config) && isSet(config["os"]) !== isSet(config["architecture"])) {
    throw invalid("invalid image config: os and architecture must be specified together");
  }
  return platformOfJson(config);
}

function isSet(field: unknown): boolean {
  return typeof field === "string" && field !== "";
}

/** A platform from fields of OCI's names; undefined without OS or CPU. */
export function platformOfJson(value: unknown): Platform | undefined {
  if (!isRecord(value)) return undefined;
  const { os, architecture, variant } = value;
  if (typeof os !== "string" || typeof architecture !== "string" || os === "" || architecture === "") {
    return undefined;
  }
  const version = value["os.version"];
  const features = value["os.features"];
  return {
    os,
    architecture,
    ...(typeof variant === "string" && variant !== "" ? { variant } : {}),
    ...(typeof version === "string" && version !== "" ? { "os.version": version } : {}),
    ...(Array.isArray(features) && features.length > 0 ? { "os.features": features.map(String) } : {}),
  };
}

function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw invalid(`${what}: ${errorMessage(error)}`);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
