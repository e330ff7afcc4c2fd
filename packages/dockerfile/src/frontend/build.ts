import { errorDetailTypes } from "@kiln/api";
import { BuildError, isBuildError } from "@kiln/base";
import { goJson, newId } from "@kiln/formats";
import type { Definition, MarshalOptions, SourceMap, State } from "@kiln/llb";
import { formatPlatformAll, normalizePlatform, type Platform, platformJson } from "@kiln/oci";
import { textFromBytes } from "../base/bytes.ts";
import { Problem } from "../base/problem.ts";
import { type Compiled, type CompileInput, compile } from "../compile/compile.ts";
import { imageJson } from "../compile/image.ts";
import { outlineOf } from "../compile/outline.ts";
import { parseInstructions } from "../instructions/parse.ts";
import type { LintWarning } from "../lint/linter.ts";
import { detectSyntax } from "../syntax/directives.ts";
import { parseFile } from "../syntax/parser.ts";
import type { FrontendAttestation, FrontendBackend, FrontendRef, FrontendResult } from "./backend.ts";
import { FALLBACK_PLATFORM, type FrontendConfig, readConfig } from "./config.ts";
import { ContextFiles, type LoadedDockerfile } from "./context.ts";
import { buildErrorOf, hasSource, sourceDetail } from "./errors.ts";
import { createHost } from "./host.ts";
import { mergeRanges } from "./merge-ranges.ts";
import {
  convertAnswer,
  describeAnswer,
  type LintReport,
  lintAnswer,
  outlineAnswer,
  targetsAnswer,
} from "./requests.ts";
import { createScanner, type Scanner, SPDX_PREDICATE, sbomMetadata } from "./sbom.ts";

const encoder = new TextEncoder();
const SYNTAX_ARG = "build-arg:BUILDKIT_SYNTAX";
const FRONTEND_CAPS: ReadonlySet<string> = new Set(
  ["inputs", "subrequests", "contexts", "gitquerystring", "contexts.zstd"].map(
    (name) => `moby.buildkit.frontend.${name}`,
  ),
);

/** What a request is worked on with. */
interface Work {
  readonly backend: FrontendBackend;
  readonly config: FrontendConfig;
  readonly files: ContextFiles;
  readonly source: SourceMap;
  readonly input: CompileInput;
}

/**
 * The `dockerfile.v0` frontend: one request from options to result.
 *
 * Throws `BuildError`s: those of the backend, and for mistakes in the Dockerfile errors with the texts and
 * source positions (`errdefs.Source`) that BuildKit's frontend gives.
 */
export async function buildDockerfile(backend: FrontendBackend): Promise<FrontendResult> {
  let source: SourceMap | undefined;
  try {
    const config = readConfig(backend);
    const { allowsForward, missing } = checkCaps(config.opts.get("frontend.caps") ?? "");
    if (missing !== undefined && !allowsForward) throw missing;
    const files = new ContextFiles(backend, config);
    const loaded = await files.loadDockerfile();
    const forwarded = await forward(backend, config, loaded.source);
    if (forwarded !== undefined) return forwarded;
    if (missing !== undefined) throw missing;
    const host = createHost(backend, config, files);
    const report = (warning: LintWarning): void => warn(backend, loaded, warning);
    const input = { sourceMap: loaded.source, settings: config.settings, host, lint: config.lint, report };
    const work: Work = { backend, config, files, source: loaded.source, input };
    const answered = await subrequest(work);
    if (answered !== undefined) return answered;
    source = loaded.source;
    return await build(work);
  } catch (error) {
    throw error instanceof Problem ? buildErrorOf(error, source) : error;
  }
}

function checkCaps(text: string): { allowsForward: boolean; missing: BuildError | undefined } {
  let allowsForward = false;
  let missing: BuildError | undefined;
  for (const cap of text === "" ? [] : text.split(",")) {
    const name = cap.split("+", 1)[0]!;
    if (FRONTEND_CAPS.has(name)) continue;
    const value = encoder.encode(goJson({ name }));
    missing = new BuildError("unimplemented", `unsupported frontend capability ${name}`, {
      wire: [{ typeUrl: errorDetailTypes.frontendCap, value }],
    });
    if (!cap.includes("+forward")) return { allowsForward: false, missing };
    allowsForward = true;
  }
  return { allowsForward, missing };
}

/** Hands the request to the frontend that the Dockerfile or an argument names. */
async function forward(
  backend: FrontendBackend,
  config: FrontendConfig,
  source: SourceMap,
): Promise<FrontendResult | undefined> {
  if (config.opts.has("cmdline")) return undefined;
  const arg = config.opts.get(SYNTAX_ARG);
  const found = arg === undefined ? detectSyntax(textFromBytes(source.data)) : undefined;
  if (arg === undefined && found === undefined) return undefined;
  const line = arg ?? found!.line;
  const name = arg === undefined ? found!.value : arg.trim().split(" ", 1)[0]!;
  try {
    const inputs = backend.caps.has("frontend.inputs") ? await backend.inputs() : undefined;
    const opts = new Map([...config.opts, ["cmdline", line], ["source", name]]);
    return await backend.solve({ frontend: "gateway.v0", opts, inputs });
  } catch (error) {
    if (!isBuildError(error) || hasSource(error)) throw error;
    if (found === undefined) {
      throw new BuildError(error.code, `failed with ${SYNTAX_ARG} = ${line}: ${error.message}`, {
        cause: error,
        wire: error.wire,
      });
    }
    const wire = [sourceDetail(source, found.ranges), ...error.wire];
    throw new BuildError(error.code, error.message, { cause: error, wire });
  }
}

function warn(
  backend: FrontendBackend,
  loaded: LoadedDockerfile,
  { rule, message, location }: LintWarning,
): void {
  const line = location[0]?.start.line ?? 0;
  const text = `${rule.name}: ${message}${line > 0 ? ` (line ${line})` : ""}`;
  const done = backend.warn(loaded.vertex, text, {
    level: 1,
    detail: [encoder.encode(rule.description)],
    url: rule.url,
    source: loaded.source,
    ranges: location,
  });
  // A warning that can't be delivered is no reason to fail.
  done?.catch(() => undefined);
}

async function subrequest(work: Work): Promise<FrontendResult | undefined> {
  const id = work.config.opts.get("requestid");
  switch (id) {
    case undefined:
      return undefined;
    case "frontend.subrequests.describe":
      return describeAnswer();
    case "frontend.outline": {
      const compiled = await compile(work.input);
      return outlineAnswer(outlineOf(compiled.target), work.source.data);
    }
    case "frontend.targets":
      return targetsAnswer(listStages(work.source), work.source.data);
    case "frontend.lint":
      return lintAnswer(await lint(work), work.source);
    case "frontend.convertllb": {
      const compiled = await compile(work.input);
      return convertAnswer(marshal(compiled.state, compiled.marshal));
    }
    default: {
      const value = encoder.encode(goJson({ name: id }));
      throw new BuildError("unknown", `unsupported request ${id}`, {
        wire: [{ typeUrl: errorDetailTypes.subrequest, value }],
      });
    }
  }
}

function listStages(source: SourceMap) {
  const file = parseFile(textFromBytes(source.data));
  if (file.problems[0] !== undefined) throw file.problems[0];
  const { stages, problems } = parseInstructions(file.instructions, undefined);
  if (problems[0] !== undefined) throw problems[0];
  return stages;
}

async function lint(work: Work): Promise<LintReport> {
  const warnings: LintWarning[] = [];
  const settings = { ...work.config.settings, allStages: work.config.settings.target === "" };
  try {
    await compile({ ...work.input, settings, report: (warning) => warnings.push(warning) });
    return { warnings };
  } catch (error) {
    if (error instanceof Problem) {
      const ranges = error.locations.length === 0 ? undefined : mergeRanges(error.locations.flat());
      return { warnings, problem: { message: error.message, ranges } };
    }
    if (isBuildError(error) && error.code !== "canceled") {
      return { warnings, problem: { message: error.message, ranges: undefined } };
    }
    throw error;
  }
}

/** A compiled and solved platform. */
interface Built {
  readonly id: string;
  readonly platform: Platform;
  readonly compiled: Compiled;
  readonly ref: FrontendRef | undefined;
}

async function build(work: Work): Promise<FrontendResult> {
  const { backend, config } = work;
  const scanner = await scannerOf(work);
  const targets: readonly (Platform | undefined)[] =
    config.targetPlatforms.length === 0 ? [undefined] : config.targetPlatforms;
  const outcomes = await Promise.allSettled(targets.map((target, i) => buildPlatform(work, target, i)));
  const built = outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
  const isMulti = config.settings.multiPlatform;
  const metadata = new Map<string, Uint8Array>();
  for (const { id, compiled } of built) addMetadata(metadata, compiled, isMulti ? `/${id}` : "");
  const platforms = built.map(({ id, platform }) => ({ ID: id, Platform: platformJson(platform) }));
  metadata.set("refs.platforms", encoder.encode(goJson({ Platforms: platforms })));
  const attestations = new Map<string, readonly FrontendAttestation[]>();
  if (scanner !== undefined) {
    for (const one of built) attestations.set(one.id, [await scan(backend, scanner, one)]);
  }
  return {
    ...(isMulti ? { refs: new Map(built.map(({ id, ref }) => [id, ref])) } : { ref: built[0]!.ref }),
    metadata,
    ...(attestations.size > 0 ? { attestations } : {}),
  };
}

async function scannerOf({ backend, config }: Work): Promise<Scanner | undefined> {
  if (config.sbom === undefined) return undefined;
  const platform = config.settings.buildPlatforms[0]!;
  return createScanner(backend, config.sbom, {
    platform,
    resolveMode: config.opts.get("image-resolve-mode"),
  });
}

async function buildPlatform(work: Work, target: Platform | undefined, index: number): Promise<Built> {
  const { backend, config, input } = work;
  const compiled = await compile({
    ...input,
    settings: { ...config.settings, targetPlatform: target },
    // The others would say the same again.
    report: index === 0 ? input.report : undefined,
  });
  const definition = marshal(compiled.state, compiled.marshal);
  const { ref } = await backend.solve({ definition, cacheImports: config.cacheImports });
  const platform = normalizePlatform(target ?? backend.defaultPlatform ?? FALLBACK_PLATFORM);
  const id = formatPlatformAll(platform);
  return { id, platform: exportPlatform(platform, compiled.image.platform), compiled, ref };
}

/** Windows images say which release they need. */
function exportPlatform(platform: Platform, image: Platform): Platform {
  if (platform.os !== "windows" || image.os !== platform.os) return platform;
  return normalizePlatform({
    ...platform,
    "os.version": platform["os.version"] || image["os.version"],
    "os.features": platform["os.features"] ?? image["os.features"],
  });
}

function marshal(state: State, options: MarshalOptions): Definition {
  try {
    return state.marshal({ ...options, localUniqueId: newId() });
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new BuildError("unknown", `failed to marshal LLB definition: ${error.message}`, { cause: error });
  }
}

function addMetadata(metadata: Map<string, Uint8Array>, compiled: Compiled, suffix: string): void {
  metadata.set(`containerimage.config${suffix}`, encoder.encode(imageJson(compiled.image)));
  if (compiled.baseImage !== undefined) {
    metadata.set(`containerimage.base.config${suffix}`, encoder.encode(imageJson(compiled.baseImage)));
  }
  if (compiled.epochSeconds !== undefined) {
    metadata.set(`source.date.epoch${suffix}`, encoder.encode(String(compiled.epochSeconds)));
  }
}

async function scan(backend: FrontendBackend, scanner: Scanner, built: Built): Promise<FrontendAttestation> {
  const { compiled, id } = built;
  const state = scanner({
    id,
    core: compiled.state,
    extras: compiled.scans,
    options: { ignoreCache: compiled.ignoresCache },
  });
  // The scanner runs on the daemon's platform, whatever was built.
  const { ref } = await backend.solve({
    definition: marshal(state, { platform: backend.defaultPlatform }),
  });
  return { kind: "bundle", ref, metadata: sbomMetadata, predicateType: SPDX_PREDICATE };
}
