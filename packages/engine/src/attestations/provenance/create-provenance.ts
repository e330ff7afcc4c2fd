import { create } from "@bufbuild/protobuf";
import {
  type ProvenanceMaterialIncomplete,
  ProvenanceMaterialIncompleteSchema,
  ProvenanceMaterialsIncompleteSchema,
} from "@kiln/api/errdefs";
import { BuildError } from "@kiln/base";
import type { Platform } from "@kiln/oci";
import type { GoJson } from "../../cache-digest/go-json.ts";
import { boolAttr } from "../../exporters/parse-attrs.ts";
import type { ResultProxy } from "../../frontends/frontend.ts";
import { JOB_COMPATIBILITY } from "../../solve/builder.ts";
import type { ObservedBuild } from "../../solve/engine.ts";
import { materialsIncompleteDetail } from "../../solve/wire-details.ts";
import { redactCredentials } from "../../sources/redact.ts";
import { DOCKERFILE_VERSION } from "../../version.ts";
import { hostPlatform } from "../../worker/host-platform.ts";
import { type BuildSteps, buildConfig, buildSteps, sourceInfo } from "./build-steps.ts";
import type { Capture } from "./capture.ts";
import { builtLayers } from "./layers.ts";
import {
  materialsOf,
  type Provenance,
  type ProvenanceEnvironment,
  platformText,
  predicateText,
  provenanceType,
  type SlsaVersion,
} from "./predicate.ts";
import { minimalRequest, type RequestRecord, requestRecord } from "./request.ts";
import type { ResultCapture } from "./result-capture.ts";

/** How a provenance is made. */
export interface ProvenanceOptions {
  readonly version: SlsaVersion;
  readonly mode: "min" | "max";
  readonly builderId: string;
  readonly reproducible: boolean;
  /** Fail when a source can't be named by a digest. */
  readonly completeMaterials: boolean;
  /** Tell how busy the machine was. */
  readonly captureUsage: boolean;
  /** Fields that the operator adds. */
  readonly environment: ProvenanceEnvironment;
}

/** A provenance on its way: `text` gives the predicate once the build's layers exist. */
export interface ProvenanceDraft {
  readonly predicateType: string;
  text(signal: AbortSignal): Promise<string>;
}

/** What a provenance is about. */
export interface ProvenanceSubject {
  readonly build: ObservedBuild;
  readonly ref: ResultProxy;
  readonly platform: Platform;
  readonly captured: ResultCapture;
}

/**
 * Reads the parameters of `attest:provenance`.
 *
 * @throws BuildError `invalid_argument` for an unknown mode or version, or a flag that is none.
 */
export function parseProvenanceOptions(
  attrs: ReadonlyMap<string, string>,
  environment: ProvenanceEnvironment = {},
): ProvenanceOptions {
  const flag = (name: string): boolean => {
    const value = attrs.get(name);
    if (value === undefined) return false;
    if (!/^(?:1|t|true|0|f|false)$/i.test(value)) {
      throw invalid(`failed to parse ${name} flag ${JSON.stringify(value)}`);
    }
    return boolAttr(name, value);
  };
  const version = attrs.get("version") ?? "v1";
  if (version === "") throw invalid("provenance SLSA version cannot be empty");
  if (version !== "v1" && version !== "v0.2") throw invalid(`invalid provenance SLSA version: ${version}`);
  const mode = attrs.get("mode") ?? "max";
  if (mode !== "min" && mode !== "max" && mode !== "full")
    throw invalid(`invalid mode ${JSON.stringify(mode)}`);
  return {
    version,
    mode: mode === "min" ? "min" : "max",
    builderId: attrs.get("builder-id") ?? "",
    reproducible: flag("reproducible"),
    completeMaterials: flag("complete-materials"),
    captureUsage: /^(?:1|t|true)$/i.test(attrs.get("capture-usage") ?? ""),
    environment,
  };
}

/**
 * Prepares the provenance of one tree. Call it while the build's job lives.
 *
 * @throws BuildError when complete materials are asked for and some can't be named.
 */
export function createProvenance(subject: ProvenanceSubject, options: ProvenanceOptions): ProvenanceDraft {
  const { build, ref, captured } = subject;
  const { capture } = captured;
  const materialsComplete = !capture.incompleteMaterials && capture.locals.length === 0;
  if (options.completeMaterials && !materialsComplete) throw incompleteMaterials(capture);
  const isMax = options.mode === "max";
  const usage = options.captureUsage ? capture.usage : undefined;
  const steps = isMax ? buildSteps(ref.definition, usage) : undefined;
  const { request, vcs, requestComplete } = describeRequest(captured, isMax);
  return {
    predicateType: provenanceType(options.version),
    text: async (signal) => {
      const finishedMs = build.job.completedMs();
      const layers = steps && (await builtLayers(await ref.result(signal), steps.indexes, signal));
      const provenance: Provenance = {
        builderId: options.builderId,
        request,
        compatibilityVersion: Number(build.job.getValue(JOB_COMPATIBILITY) ?? 0),
        materials: materialsOf(capture),
        builderPlatform: platformText(hostPlatform()),
        targetPlatform: platformText(subject.platform),
        dockerfileVersion: request.request.frontend === "dockerfile.v0" ? DOCKERFILE_VERSION : "",
        environment: options.environment,
        buildConfig: steps && buildConfig(steps),
        invocationId: build.job.uniqueId,
        startedMs: build.job.startedMs,
        finishedMs,
        metadata: {
          vcs,
          source: sourceOf(ref, steps),
          layers,
          systemUsage: options.captureUsage ? await build.usage?.samples() : undefined,
          network: networkOf(capture),
        },
        hermetic: materialsComplete && !capture.networkAccess,
        requestComplete,
        materialsComplete,
        reproducible: options.reproducible,
      };
      return predicateText(provenance, options.version);
    },
  };
}

function sourceOf(ref: ResultProxy, steps: BuildSteps | undefined): GoJson | undefined {
  return steps && sourceInfo(ref.definition, steps);
}

/** The request in the words of provenance; `vcs:` arguments are told of apart from the others. */
function describeRequest(
  { capture, request }: ResultCapture,
  isMax: boolean,
): { request: RequestRecord; vcs: Map<string, string>; requestComplete: boolean } {
  const record = request ?? requestRecord("", new Map(), capture);
  const args = new Map(record.request.args);
  const vcs = new Map<string, string>();
  for (const [key, value] of args) {
    if (!key.startsWith("vcs:")) continue;
    args.delete(key);
    if (value !== "") vcs.set(key.slice(4), key === "vcs:source" ? redactCredentials(value) : value);
  }
  const full = {
    ...record.request,
    args,
    secrets: capture.secrets,
    ssh: capture.ssh,
    locals: capture.locals,
  };
  const known = record.request.frontend !== "";
  if (isMax) return { request: { ...record, request: full }, vcs, requestComplete: known };
  const minimal = minimalRequest(full);
  return {
    request: { ...record, request: minimal.request },
    vcs,
    requestComplete: known && !minimal.incomplete,
  };
}

function networkOf(capture: Capture): GoJson | undefined {
  if (!capture.proxyNetwork) return undefined;
  const incomplete = capture.incompleteRequests.map(({ op, name, method, uri, reason }) => ({
    op: op || undefined,
    name: name || undefined,
    method: method || undefined,
    uri: uri || undefined,
    reason: reason || undefined,
  }));
  return { mode: "proxy", proxy: incomplete.length === 0 ? undefined : { incomplete } };
}

function incompleteMaterials(capture: Capture): BuildError {
  const details: ProvenanceMaterialIncomplete[] = [
    ...capture.locals.map((name) =>
      create(ProvenanceMaterialIncompleteSchema, { name, reason: "local_source" }),
    ),
    ...capture.incompleteRequests.map((item) => create(ProvenanceMaterialIncompleteSchema, item)),
  ];
  const lines = [
    "provenance materials are incomplete",
    "",
    "The build requested complete provenance materials, but not all dependencies could be captured.",
  ];
  if (capture.locals.length > 0) {
    lines.push("", "Uncaptured local sources:");
    for (const name of capture.locals) lines.push(`  - ${name || "<unnamed>"}`, "    reason: local_source");
  }
  if (capture.incompleteRequests.length > 0) {
    lines.push("", "Uncaptured requests:");
    for (const { op, name, method, uri, reason } of capture.incompleteRequests) {
      lines.push(`  - ${name || op || uri}`);
      if (method !== "") lines.push(`    method: ${method}`);
      if (uri !== "") lines.push(`    url: ${uri}`);
      if (reason !== "") lines.push(`    reason: ${reason}`);
    }
  }
  return new BuildError("failed_precondition", lines.join("\n"), {
    wire: [materialsIncompleteDetail(create(ProvenanceMaterialsIncompleteSchema, { incomplete: details }))],
  });
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
