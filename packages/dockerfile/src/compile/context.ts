import type {
  CdiDevice,
  EnvList,
  HostIp,
  LinuxResources,
  NetworkMode,
  ProxyEnv,
  ResolveMode,
  SourceMap,
  State,
  Ulimit,
} from "@kiln/llb";
import type { Platform } from "@kiln/oci";
import type { PatternMatcher } from "@kiln/patterns";
import type { Linter } from "../lint/linter.ts";
import type { LexOptions } from "../shell/lex.ts";
import type { CompileHost } from "./host.ts";
import type { StageState } from "./stage-state.ts";

/** Settings of a build that aren't in its Dockerfile. */
export interface BuildSettings {
  readonly buildArgs: ReadonlyMap<string, string>;
  readonly labels: ReadonlyMap<string, string>;
  readonly target: string;
  readonly cacheNamespace: string;
  readonly cgroupParent: string;
  readonly extraHosts: readonly HostIp[];
  readonly hostname: string;
  readonly resolveMode: ResolveMode;
  readonly networkMode: NetworkMode;
  readonly gitAdvice: boolean;
  readonly shmSize: bigint;
  readonly ulimits: readonly Ulimit[];
  readonly linuxResources: LinuxResources | undefined;
  readonly devices: readonly CdiDevice[];
  /** Undefined stands for the first build platform. */
  readonly targetPlatform: Platform | undefined;
  readonly buildPlatforms: readonly Platform[];
  readonly multiPlatform: boolean;
  /** Compiles every stage, whether the target needs it or not. */
  readonly allStages: boolean;
}

/** Everything that the steps of a stage are compiled with. */
export interface CompileContext {
  readonly settings: BuildSettings;
  readonly host: CompileHost;
  readonly sourceMap: SourceMap;
  readonly linter: Linter;
  readonly lex: LexOptions;
  /** With the epoch resolved. */
  readonly buildArgs: ReadonlyMap<string, string>;
  readonly globalArgs: EnvList;
  readonly epochSeconds: bigint | undefined;
  readonly targetPlatform: Platform;
  readonly buildPlatforms: readonly Platform[];
  readonly isImplicitTarget: boolean;
  readonly proxyEnv: ProxyEnv | undefined;
  readonly stages: StageList;
  /** The build context; its filter is known at the end. */
  readonly buildContext: State;
}

/** {@link CompileContext} for one stage's steps. */
export interface StepContext extends CompileContext {
  readonly ignore: PatternMatcher | undefined;
}

/** Stages by position and name. */
export interface StageList {
  readonly all: readonly StageState[];
  add(stage: StageState): void;
  byName(name: string): StageState | undefined;
  /** Names of all stages that have one. */
  names(): string[];
}
