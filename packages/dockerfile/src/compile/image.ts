import { compareBytes, goJson } from "@kiln/formats";
import { defaultPathEnv, type Platform } from "@kiln/oci";
import { textFromBytes } from "../base/bytes.ts";
import { Problem } from "../base/problem.ts";

/** HEALTHCHECK of an image; times are nanoseconds. */
export interface Healthcheck {
  readonly test: readonly string[];
  readonly interval: bigint;
  readonly timeout: bigint;
  readonly startPeriod: bigint;
  readonly startInterval: bigint;
  readonly retries: number;
}

/** One line of an image's history. */
export interface History {
  readonly created: string | undefined;
  readonly createdBy: string;
  readonly author: string;
  readonly comment: string;
  readonly emptyLayer: boolean;
}

/** How containers of an image run. */
export interface ImageConfig {
  user: string;
  exposedPorts: Set<string>;
  env: string[];
  entrypoint: readonly string[];
  cmd: readonly string[];
  volumes: Set<string>;
  workingDir: string;
  labels: Map<string, string>;
  stopSignal: string;
  argsEscaped: boolean;
  healthcheck: Healthcheck | undefined;
  onBuild: string[];
  shell: readonly string[];
}

/** An image's config while a stage is compiled. */
export interface Image {
  created: string | undefined;
  author: string;
  platform: Platform;
  config: ImageConfig;
  rootfs: { type: string; diffIds: readonly string[] | undefined };
  history: History[];
}

/** The config of `FROM scratch`. */
export function emptyImage(platform: Platform): Image {
  const env = platform.os === "windows" ? [] : [`PATH=${defaultPathEnv(platform.os)}`];
  return {
    created: undefined,
    author: "",
    platform,
    config: { ...emptyConfig(), workingDir: "/", env },
    rootfs: { type: "layers", diffIds: undefined },
    history: [],
  };
}

/** Nothing at all: the config of a context that says none. */
export function blankImage(): Image {
  return {
    created: undefined,
    author: "",
    platform: { architecture: "", os: "" },
    config: emptyConfig(),
    rootfs: { type: "", diffIds: undefined },
    history: [],
  };
}

function emptyConfig(): ImageConfig {
  return {
    user: "",
    exposedPorts: new Set(),
    env: [],
    entrypoint: [],
    cmd: [],
    volumes: new Set(),
    workingDir: "",
    labels: new Map(),
    stopSignal: "",
    argsEscaped: false,
    healthcheck: undefined,
    onBuild: [],
    shell: [],
  };
}

/** A copy that can be changed on its own. */
export function cloneImage(image: Image): Image {
  const { config } = image;
  return {
    ...image,
    config: {
      ...config,
      exposedPorts: new Set(config.exposedPorts),
      env: [...config.env],
      volumes: new Set(config.volumes),
      labels: new Map(config.labels),
      onBuild: [...config.onBuild],
    },
    history: [...image.history],
  };
}

type Json = Readonly<Record<string, unknown>>;

/** Reads an image's config blob; unknown fields are dropped. Throws a problem for what is no config. */
export function parseImage(bytes: Uint8Array): Image {
  let parsed: unknown;
  try {
    parsed = JSON.parse(textFromBytes(bytes).toWellFormed());
  } catch (error) {
    throw new Problem(`failed to parse image config: ${error instanceof Error ? error.message : error}`);
  }
  const root = record(parsed);
  const config = record(root.config);
  const rootfs = record(root.rootfs);
  return {
    created: time(root.created),
    author: text(root.author),
    platform: {
      architecture: text(root.architecture),
      os: text(root.os),
      "os.version": text(root["os.version"]) || undefined,
      "os.features": list(root["os.features"]),
      variant: text(root.variant) || undefined,
    },
    config: parseConfig(config),
    rootfs: { type: text(rootfs.type), diffIds: list(rootfs.diff_ids) },
    history: array(root.history).map(parseHistory),
  };
}

function parseConfig(config: Json): ImageConfig {
  return {
    user: text(config.User),
    exposedPorts: new Set(Object.keys(record(config.ExposedPorts))),
    env: [...(list(config.Env) ?? [])],
    entrypoint: list(config.Entrypoint) ?? [],
    cmd: list(config.Cmd) ?? [],
    volumes: new Set(Object.keys(record(config.Volumes))),
    workingDir: text(config.WorkingDir),
    labels: new Map(Object.entries(record(config.Labels)).map(([key, value]) => [key, text(value)])),
    stopSignal: text(config.StopSignal),
    argsEscaped: config.ArgsEscaped === true,
    healthcheck: parseHealthcheck(config.Healthcheck),
    onBuild: [...(list(config.OnBuild) ?? [])],
    shell: list(config.Shell) ?? [],
  };
}

function parseHealthcheck(value: unknown): Healthcheck | undefined {
  if (value === undefined || value === null) return undefined;
  const check = record(value);
  return {
    test: list(check.Test) ?? [],
    interval: integer(check.Interval),
    timeout: integer(check.Timeout),
    startPeriod: integer(check.StartPeriod),
    startInterval: integer(check.StartInterval),
    retries: Number(integer(check.Retries)),
  };
}

function parseHistory(value: unknown): History {
  const entry = record(value);
  return {
    created: time(entry.created),
    createdBy: text(entry.created_by),
    author: text(entry.author),
    comment: text(entry.comment),
    emptyLayer: entry.empty_layer === true,
  };
}

function record(value: unknown): Json {
  if (value === undefined || value === null) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Json;
  throw invalid(value, "an object");
}

function array(value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw invalid(value, "a list");
}

function list(value: unknown): readonly string[] | undefined {
  return value === undefined || value === null ? undefined : array(value).map(text);
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  throw invalid(value, "a text");
}

function integer(value: unknown): bigint {
  if (value === undefined || value === null) return 0n;
  if (typeof value === "number" && Number.isInteger(value)) return BigInt(value);
  throw invalid(value, "an integer");
}

const TIME = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d+))?(Z|[+-]\d{2}:\d{2})$/;

/** A time in the form that Go gives it: up to nine decimals, none that is zero at the end. */
function time(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  const match = TIME.exec(text(value));
  if (match === null) throw invalid(value, "a time");
  const decimals = (match[2] ?? "").slice(0, 9).replace(/0+$/, "");
  const zone = match[3] === "+00:00" || match[3] === "-00:00" ? "Z" : match[3];
  return `${match[1]}${decimals === "" ? "" : `.${decimals}`}${zone}`;
}

function invalid(value: unknown, wanted: string): Problem {
  return new Problem(`failed to parse image config: ${typeof value} where ${wanted} belongs`);
}

function some<T extends string | boolean | number>(value: T): T | undefined {
  return value === "" || value === false || value === 0 ? undefined : value;
}

function filled<T>(values: readonly T[]): readonly T[] | undefined {
  return values.length === 0 ? undefined : values;
}

function keys(values: ReadonlySet<string>): ReadonlyMap<string, object> | undefined {
  return values.size === 0 ? undefined : new Map([...values].sort(compareBytes).map((key) => [key, {}]));
}

/** The config blob, byte for byte as BuildKit's frontend writes it. */
export function imageJson(image: Image): string {
  const { config, platform } = image;
  const check = config.healthcheck;
  return goJson({
    created: image.created,
    author: some(image.author),
    architecture: platform.architecture,
    os: platform.os,
    "os.version": platform["os.version"],
    "os.features": filled(platform["os.features"] ?? []),
    variant: platform.variant,
    rootfs: { type: image.rootfs.type, diff_ids: image.rootfs.diffIds ?? null },
    history: filled(image.history.map(historyJson)),
    config: {
      User: some(config.user),
      ExposedPorts: keys(config.exposedPorts),
      Env: filled(config.env),
      Entrypoint: filled(config.entrypoint),
      Cmd: filled(config.cmd),
      Volumes: keys(config.volumes),
      WorkingDir: some(config.workingDir),
      Labels: config.labels.size === 0 ? undefined : config.labels,
      StopSignal: some(config.stopSignal),
      ArgsEscaped: some(config.argsEscaped),
      Healthcheck: check && {
        Test: filled(check.test),
        Interval: check.interval === 0n ? undefined : check.interval,
        Timeout: check.timeout === 0n ? undefined : check.timeout,
        StartPeriod: check.startPeriod === 0n ? undefined : check.startPeriod,
        StartInterval: check.startInterval === 0n ? undefined : check.startInterval,
        Retries: some(check.retries),
      },
      OnBuild: filled(config.onBuild),
      Shell: filled(config.shell),
    },
  });
}

function historyJson(entry: History): object {
  return {
    created: entry.created,
    created_by: some(entry.createdBy),
    author: some(entry.author),
    comment: some(entry.comment),
    empty_layer: some(entry.emptyLayer),
  };
}
