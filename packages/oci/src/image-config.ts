import type { Platform } from "./platform.ts";

/** HEALTHCHECK of an image. Durations are nanoseconds. */
export interface HealthConfig {
  readonly Test?: readonly string[] | undefined;
  readonly Interval?: number | undefined;
  readonly Timeout?: number | undefined;
  readonly StartPeriod?: number | undefined;
  readonly StartInterval?: number | undefined;
  readonly Retries?: number | undefined;
}

/** How a container of the image runs: OCI's fields and Docker's. Names are those of the JSON. */
export interface ContainerConfig {
  readonly User?: string | undefined;
  readonly ExposedPorts?: Readonly<Record<string, Readonly<Record<string, never>>>> | undefined;
  readonly Env?: readonly string[] | undefined;
  readonly Entrypoint?: readonly string[] | null | undefined;
  readonly Cmd?: readonly string[] | null | undefined;
  readonly Volumes?: Readonly<Record<string, Readonly<Record<string, never>>>> | undefined;
  readonly WorkingDir?: string | undefined;
  readonly Labels?: Readonly<Record<string, string>> | undefined;
  readonly StopSignal?: string | undefined;
  readonly ArgsEscaped?: boolean | undefined;
  readonly Healthcheck?: HealthConfig | undefined;
  readonly OnBuild?: readonly string[] | undefined;
  readonly StopTimeout?: number | undefined;
  readonly Shell?: readonly string[] | undefined;
}

/** Digests of the uncompressed layers, lowest first. */
export interface RootFs {
  readonly type: "layers";
  readonly diff_ids: readonly string[];
}

/** How one layer (or one layerless step) came to be. */
export interface HistoryEntry {
  /** RFC 3339. */
  readonly created?: string | undefined;
  readonly created_by?: string | undefined;
  readonly author?: string | undefined;
  readonly comment?: string | undefined;
  readonly empty_layer?: boolean | undefined;
}

/** The config blob of an image; also its platform. */
export interface ImageConfig extends Platform {
  /** RFC 3339. */
  readonly created?: string | undefined;
  readonly author?: string | undefined;
  readonly config?: ContainerConfig | undefined;
  readonly rootfs: RootFs;
  readonly history?: readonly HistoryEntry[] | undefined;
}

/** PATH of images that don't set one, by operating system. */
export function defaultPathEnv(os: string): string {
  return os === "windows"
    ? "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0"
    : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}
