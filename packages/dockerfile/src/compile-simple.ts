import { llbCaps } from "@kiln/api";
import { BuildError } from "@kiln/base";
import { type Definition, local, type ResolveMode } from "@kiln/llb";
import type { Digest, Platform } from "@kiln/oci";
import type { Diagnostic } from "./api.ts";
import { bytesFromText, textFromBytes } from "./base/bytes.ts";
import { Problem } from "./base/problem.ts";
import { compile } from "./compile/compile.ts";
import type { BuildSettings } from "./compile/context.ts";
import type { CompileHost } from "./compile/host.ts";
import { imageJson } from "./compile/image.ts";
import type { ResolvedImage } from "./frontend/backend.ts";
import { sourcePrinter } from "./frontend/print-source.ts";
import { type LintWarning, parseLintOptions } from "./lint/linter.ts";

/** What {@link compileDockerfile} takes. */
export interface CompileOptions {
  readonly filename?: string | undefined;
  readonly target?: string | undefined;
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** linux/amd64 by default. */
  readonly platform?: Platform | undefined;
  readonly buildPlatform?: Platform | undefined;
  readonly resolveMode?: ResolveMode | undefined;
  /** Patterns of the ignore file. */
  readonly ignore?: readonly string[] | undefined;
  /** Rules for the checks, as `# check=` has them; by default those of the file. */
  readonly check?: string | undefined;
  /** Looks at the stages too that the target doesn't need. */
  readonly allStages?: boolean | undefined;
  /** Session that the build context comes from. */
  readonly sessionId?: string | undefined;
  /**
   * Finds a base image and its config. Without it every image is taken as it is named, with an empty config.
   */
  readonly resolveImage?:
    | ((
        ref: string,
        platform: Platform,
      ) => Promise<{ readonly digest?: Digest; readonly config: Uint8Array }>)
    | undefined;
}

/** What a Dockerfile becomes. */
export interface CompiledDockerfile {
  /** Undefined when there are errors. */
  readonly definition: Definition | undefined;
  /** The image's config as JSON text. */
  readonly image: string | undefined;
  readonly diagnostics: readonly Diagnostic[];
}

const LLB_CAPS: ReadonlySet<string> = new Set(llbCaps.map(({ id }) => id));
const DEFAULT_PLATFORM: Platform = { os: "linux", architecture: "amd64" };

/**
 * Compiles a Dockerfile without a daemon. Never throws for what is in the file; what `resolveImage` throws
 * becomes a diagnostic at its FROM when it is a `BuildError`.
 */
export async function compileDockerfile(
  input: string | Uint8Array,
  options: CompileOptions = {},
): Promise<CompiledDockerfile> {
  const data = typeof input === "string" ? bytesFromText(input) : input;
  const filename = options.filename ?? "Dockerfile";
  const text = textFromBytes(data);
  const print = sourcePrinter(filename, text);
  const diagnostics: Diagnostic[] = [];
  const add = (severity: Diagnostic["severity"], message: string, warning: Partial<LintWarning>): void => {
    const ranges = warning.location ?? [];
    const { rule } = warning;
    diagnostics.push({ severity, message, ranges, excerpt: print(ranges), rule });
  };
  try {
    const compiled = await compile({
      sourceMap: { filename, language: "Dockerfile", data },
      settings: settingsOf(options),
      host: hostOf(options),
      lint: options.check === undefined ? undefined : parseLintOptions(options.check),
      report: (warning) => add("warning", warning.message, warning),
    });
    const definition = compiled.state.marshal(compiled.marshal);
    return { definition, image: imageJson(compiled.image), diagnostics };
  } catch (error) {
    if (!(error instanceof Problem) && !(error instanceof BuildError)) throw error;
    const location = error instanceof Problem ? error.locations[0] : undefined;
    add("error", error.message, location === undefined ? {} : { location });
    return { definition: undefined, image: undefined, diagnostics };
  }
}

function settingsOf(options: CompileOptions): BuildSettings {
  return {
    buildArgs: new Map(Object.entries(options.buildArgs ?? {})),
    labels: new Map(Object.entries(options.labels ?? {})),
    target: options.target ?? "",
    cacheNamespace: "",
    cgroupParent: "",
    extraHosts: [],
    hostname: "",
    resolveMode: options.resolveMode ?? "default",
    networkMode: "sandbox",
    gitAdvice: false,
    shmSize: 0n,
    ulimits: [],
    linuxResources: undefined,
    devices: [],
    targetPlatform: options.platform,
    buildPlatforms: [options.buildPlatform ?? options.platform ?? DEFAULT_PLATFORM],
    multiPlatform: false,
    allStages: options.allStages ?? false,
  };
}

function hostOf(options: CompileOptions): CompileHost {
  return {
    llbCaps: LLB_CAPS,
    resolveImage: async (ref, { platform }): Promise<ResolvedImage> => {
      const wanted = platform ?? DEFAULT_PLATFORM;
      if (options.resolveImage === undefined) {
        return { ref, digest: undefined, config: bytesFromText(plainConfig(wanted)) };
      }
      const { digest, config } = await options.resolveImage(ref, wanted);
      return { ref, digest, config };
    },
    namedContext: () => undefined,
    mainContext: async (followPaths) =>
      local("context", {
        sessionId: options.sessionId,
        excludePatterns: options.ignore ?? [],
        sharedKeyHint: "context",
        name: "[internal] load build context",
        followPaths,
      }),
    ignorePatterns: async () => options.ignore ?? [],
    ignoresCache: () => false,
  };
}

/** A config that says nothing but that there are layers. */
function plainConfig({ os, architecture }: Platform): string {
  return JSON.stringify({ os, architecture, rootfs: { type: "layers" }, history: [{}] });
}
