import { BuildError } from "@kiln/base";
import { normalizePlatform } from "@kiln/oci";
import { type GoJson, goJsonText } from "../../cache-digest/go-json.ts";
import { hostPlatform } from "../../worker/host-platform.ts";
import { joinJsonObject, splitJsonObject } from "./raw-json.ts";

/** One entry of an image's history; times as they stand in the JSON. */
export interface HistoryItem {
  readonly created?: string;
  readonly created_by?: string;
  readonly author?: string;
  readonly comment?: string;
  readonly empty_layer?: boolean;
}

/** What is known of a layer that the config says nothing about. */
export interface LayerNote {
  readonly description: string;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
}

const DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EXPORTER_COMMENT = "buildkit.exporter.image.v0";
const MAX_HISTORY = 100_000;

/** The config of an image whose frontend gave none. */
export function defaultImageConfig(): string {
  const { os, architecture, variant } = normalizePlatform(hostPlatform());
  return goJsonText({
    architecture,
    ...(variant === undefined ? {} : { variant }),
    os,
    config: { Env: [DEFAULT_PATH], WorkingDir: "/" },
    rootfs: { type: "layers", diff_ids: null },
  });
}

/** The config of an attestation manifest in its older form. */
export function attestationConfig(diffIds: readonly string[]): string {
  return goJsonText({
    architecture: "unknown",
    os: "unknown",
    config: {},
    rootfs: { type: "layers", diff_ids: diffIds.length === 0 ? null : diffIds },
  });
}

/** The history that a config has. @throws BuildError `invalid_argument`. */
export function historyOf(config: string): HistoryItem[] {
  const parsed: unknown = JSON.parse(config);
  const list =
    typeof parsed === "object" && parsed !== null && "history" in parsed ? (parsed.history ?? []) : [];
  if (!Array.isArray(list) || list.length > MAX_HISTORY) {
    throw new BuildError("invalid_argument", "failed to unmarshal history from config");
  }
  return list.map((item: Record<string, unknown>) => ({
    ...textField(item, "created"),
    ...textField(item, "created_by"),
    ...textField(item, "author"),
    ...textField(item, "comment"),
    ...(item["empty_layer"] === true ? { empty_layer: true } : {}),
  }));
}

function textField(item: Record<string, unknown>, key: string): Record<string, string> {
  const value = item[key];
  return typeof value === "string" && value !== "" ? { [key]: value } : {};
}

/**
 * Makes the history fit the layers: surplus entries lose their layer, layers without an entry get one from
 * what is known of them, and every entry gets a time: that of its layer, else of the first new layer.
 */
export function fitHistory(history: readonly HistoryItem[], layers: readonly LayerNote[]): HistoryItem[] {
  let used = 0;
  const fitted = history.map((item) => {
    if (item.empty_layer === true) return item;
    return used++ < layers.length ? item : { ...item, empty_layer: true };
  });
  const known = Math.min(used, layers.length);
  for (const layer of layers.slice(known)) {
    fitted.push({
      created: goTime(layer.createdAt),
      created_by: layer.description === "" ? "created by buildkit" : layer.description,
      comment: EXPORTER_COMMENT,
    });
  }
  let at = 0;
  const dated = fitted.map((item) => {
    if (item.empty_layer === true) return item;
    const layer = layers[at++];
    if (item.created !== undefined || layer === undefined) return item;
    return orderHistory({ ...item, created: goTime(layer.createdAt) });
  });
  return fillTimes(dated);
}

function fillTimes(history: readonly HistoryItem[]): HistoryItem[] {
  let created: string | undefined;
  let gap = false;
  for (const item of history) {
    if (item.created === undefined) {
      gap = true;
      continue;
    }
    created = item.created;
    if (gap) break;
  }
  gap = false;
  return history.map((item) => {
    if (item.created !== undefined) {
      if (gap) created = item.created;
      return item;
    }
    gap = true;
    return created === undefined ? item : orderHistory({ ...item, created });
  });
}

function orderHistory(item: HistoryItem): HistoryItem {
  const { created, created_by, author, comment, empty_layer } = item;
  return {
    ...(created === undefined ? {} : { created }),
    ...(created_by === undefined ? {} : { created_by }),
    ...(author === undefined ? {} : { author }),
    ...(comment === undefined ? {} : { comment }),
    ...(empty_layer === true ? { empty_layer } : {}),
  };
}

/** Go's RFC 3339 text of a time, without zeros at the end of its fraction. */
export function goTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.?0*Z$/, "Z");
}

/** What a frontend's config is completed with. */
export interface ConfigPatch {
  readonly diffIds: readonly string[];
  readonly history: readonly HistoryItem[];
  readonly inlineCache: Uint8Array | undefined;
  /** Seconds; no time in the config may be later, except the base image's own. */
  readonly epoch: number | undefined;
  /** History of the base image, which keeps its times. */
  readonly baseHistory: readonly HistoryItem[];
}

/**
 * The final config: the frontend's, with the layers as they are, and keys in order.
 *
 * @throws BuildError `invalid_argument` for a config without OS or CPU.
 */
export function patchImageConfig(config: string, patch: ConfigPatch): string {
  const fields = splitJsonObject(config);
  for (const key of ["os", "architecture"]) {
    const value = fields.get(key);
    if (value === undefined || value === '""' || value === "null") {
      throw new BuildError("invalid_argument", `invalid image config for export: missing ${key}`);
    }
  }
  const history = clampHistory(patch);
  fields.set(
    "rootfs",
    goJsonText({ type: "layers", diff_ids: patch.diffIds.length === 0 ? null : patch.diffIds }),
  );
  fields.set("history", history.length === 0 ? "null" : goJsonText(history as readonly GoJson[]));
  const created = fields.get("created");
  if (created === undefined) {
    const last = history.findLast((item) => item.created !== undefined)?.created;
    fields.set("created", goJsonText(last ?? null));
  } else if (patch.epoch !== undefined && isLater(JSON.parse(created), patch.epoch)) {
    fields.set("created", goJsonText(goTime(patch.epoch * 1000)));
  }
  if (patch.inlineCache !== undefined) {
    fields.set("moby.buildkit.cache.v0", goJsonText(patch.inlineCache));
  }
  return joinJsonObject(fields);
}

function clampHistory({ history, epoch, baseHistory }: ConfigPatch): readonly HistoryItem[] {
  if (epoch === undefined) return history;
  let fromBase = true;
  return history.map((item, at) => {
    const base = baseHistory[at];
    fromBase &&=
      base !== undefined && JSON.stringify(orderHistory(base)) === JSON.stringify(orderHistory(item));
    if (fromBase || (item.created !== undefined && !isLater(item.created, epoch))) return item;
    return orderHistory({ ...item, created: goTime(epoch * 1000) });
  });
}

function isLater(created: unknown, epoch: number): boolean {
  if (typeof created !== "string") return false;
  const ms = Date.parse(created);
  if (Number.isNaN(ms)) {
    throw new BuildError("invalid_argument", `failed to unmarshal creation time ${JSON.stringify(created)}`);
  }
  return ms > epoch * 1000;
}
