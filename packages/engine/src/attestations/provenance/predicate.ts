import { BuildError } from "@kiln/base";
import { formatPlatform, normalizePlatform, type Platform } from "@kiln/oci";
import { type GoJson, goJsonText, sortedKeys, sortedRecord } from "../../cache-digest/go-json.ts";
import { imagePurl } from "../purl.ts";
import type { Capture, GitMaterial } from "./capture.ts";
import {
  commitDigest,
  type DigestSet,
  digestSet,
  type RequestParameters,
  type RequestRecord,
} from "./request.ts";

/** Versions of SLSA's provenance that can be written. */
export type SlsaVersion = "v0.2" | "v1";

/** Fields that an operator adds to every provenance of a builder. */
export type ProvenanceEnvironment = Readonly<Record<string, GoJson>>;

/** Everything that a provenance says, in no version's form. */
export interface Provenance {
  readonly builderId: string;
  readonly request: RequestRecord;
  readonly compatibilityVersion: number;
  readonly materials: readonly Material[];
  readonly builderPlatform: string;
  readonly targetPlatform: string;
  readonly dockerfileVersion: string;
  /** The operator's own fields. */
  readonly environment: ProvenanceEnvironment;
  /** `llbDefinition` and `digestMapping`, in max mode. */
  readonly buildConfig: GoJson | undefined;
  readonly invocationId: string;
  readonly startedMs: number;
  readonly finishedMs: number;
  readonly metadata: BuildMetadata;
  readonly hermetic: boolean;
  readonly requestComplete: boolean;
  readonly materialsComplete: boolean;
  readonly reproducible: boolean;
}

/** BuildKit's own metadata. */
export interface BuildMetadata {
  readonly vcs: ReadonlyMap<string, string>;
  readonly source: GoJson | undefined;
  readonly layers: GoJson | undefined;
  readonly systemUsage?: readonly GoJson[] | undefined;
  readonly network: GoJson | undefined;
}

/** Something that went into the build. */
export interface Material {
  readonly uri: string;
  readonly digest: DigestSet | undefined;
}

const BUILD_TYPE_V1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1";

/** Predicate type of a version. */
export function provenanceType(version: SlsaVersion): string {
  return `https://slsa.dev/provenance/${version}`;
}

/** What a build used, in the order images, blobs, repositories, downloads. */
export function materialsOf(capture: Capture): Material[] {
  return [
    ...capture.images.map(({ ref, platform, digest, local }) => ({
      uri: imagePurl(ref, platform, { type: local ? "oci" : "docker" }),
      digest: digest === "" ? undefined : digestSet(digest),
    })),
    ...capture.blobs.map(({ ref, digest, local }) => ({
      uri: imagePurl(ref, undefined, { type: local ? "oci" : "docker", extra: [["ref_type", "blob"]] }),
      digest: digestSet(digest),
    })),
    ...capture.git.flatMap(gitMaterials),
    ...capture.http.map(({ url, digest }) => ({ uri: url, digest: digestSet(digest) })),
  ];
}

/** A repository is named by its URL; the bundle that stood in for it is a material of its own. */
function gitMaterials({ url, commit, bundle }: GitMaterial): Material[] {
  const repository = { uri: url, digest: commitDigest(commit) };
  const parts = /^([^:]+):\/\/(.+)@([^@]+)$/s.exec(bundle ?? "");
  if (parts === null) return [repository];
  const [, scheme, ref = "", digest = ""] = parts;
  const uri = imagePurl(ref, undefined, {
    type: scheme === "oci-layout+blob" ? "oci" : "docker",
    extra: [
      ["ref_type", "bundle"],
      ["vcs_url", url],
    ],
  });
  return [repository, { uri, digest: digestSet(digest) }];
}

/** The platform as provenance writes it. */
export function platformText(platform: Platform): string {
  return formatPlatform(normalizePlatform(platform));
}

/** The predicate's JSON, compact. */
export function predicateText(provenance: Provenance, version: SlsaVersion): string {
  return goJsonText(version === "v1" ? slsa1(provenance) : slsa02(provenance));
}

function slsa1(p: Provenance): GoJson {
  return {
    buildDefinition: {
      buildType: BUILD_TYPE_V1,
      resolvedDependencies: materials(p),
      externalParameters: {
        configSource: configSource(p.request.configSource, "path"),
        request: parameters(p.request.request, p.compatibilityVersion),
      },
      internalParameters: sortedKeys({
        buildConfig: p.buildConfig,
        builderPlatform: p.builderPlatform,
        targetPlatform: p.targetPlatform,
        dockerfileVersion: p.dockerfileVersion || undefined,
        ...p.environment,
      }),
    },
    runDetails: {
      builder: { id: p.builderId },
      metadata: {
        invocationId: p.invocationId,
        startedOn: goTime(p.startedMs),
        finishedOn: goTime(p.finishedMs),
        buildkit_metadata: metadata(p.metadata),
        buildkit_hermetic: p.hermetic || undefined,
        buildkit_completeness: {
          request: p.requestComplete,
          resolvedDependencies: p.materialsComplete,
        },
        buildkit_reproducible: p.reproducible || undefined,
      },
    },
  };
}

function slsa02(p: Provenance): GoJson {
  return {
    builder: { id: p.builderId },
    buildType: BUILD_TYPE_V02,
    materials: materials(p),
    invocation: {
      configSource: configSource(p.request.configSource, "entryPoint"),
      parameters: parameters(p.request.request, p.compatibilityVersion),
      environment: sortedKeys({
        platform: p.builderPlatform,
        dockerfileVersion: p.dockerfileVersion || undefined,
        ...p.environment,
      }),
    },
    buildConfig: p.buildConfig,
    metadata: {
      buildInvocationID: p.invocationId,
      buildStartedOn: goTime(p.startedMs),
      buildFinishedOn: goTime(p.finishedMs),
      completeness: { parameters: p.requestComplete, environment: true, materials: p.materialsComplete },
      reproducible: p.reproducible,
      [`${BUILD_TYPE_V02}#metadata`]: metadata(p.metadata),
      [`${BUILD_TYPE_V02}#hermetic`]: p.hermetic || undefined,
    },
  };
}

function materials({ materials: all }: Provenance): GoJson | undefined {
  if (all.length === 0) return undefined;
  return all.map(({ uri, digest }) => ({ uri, digest: digest && sortedRecord(digest) }));
}

function configSource(source: RequestRecord["configSource"], pathKey: "path" | "entryPoint"): GoJson {
  return { uri: source.uri, digest: source.digest && sortedRecord(source.digest), [pathKey]: source.path };
}

function parameters(request: RequestParameters, compatibilityVersion: number): GoJson {
  const list = <T>(items: readonly T[], convert: (item: T) => GoJson): GoJson | undefined =>
    items.length === 0 ? undefined : items.map(convert);
  const use = ({ id, optional }: { id: string; optional: boolean }): GoJson => ({
    id,
    optional: optional || undefined,
  });
  return {
    frontend: request.frontend || undefined,
    args: request.args.size === 0 ? undefined : sortedRecord(request.args),
    secrets: list(request.secrets, use),
    ssh: list(request.ssh, use),
    locals: list(request.locals, (name) => ({ name })),
    inputs:
      request.inputs.size === 0
        ? undefined
        : sortedRecord(new Map([...request.inputs].map(([name, record]) => [name, requestJson(record)]))),
    root: request.root && requestJson(request.root),
    compatibilityVersion: compatibilityVersion || undefined,
  };
}

function requestJson({ configSource: source, request }: RequestRecord): GoJson {
  return { configSource: configSource(source, "path"), request: parameters(request, 0) };
}

function metadata({ vcs, source, layers, systemUsage, network }: BuildMetadata): GoJson {
  return {
    vcs: vcs.size === 0 ? undefined : sortedRecord(vcs),
    source,
    layers,
    sysUsage: systemUsage === undefined || systemUsage.length === 0 ? undefined : systemUsage,
    network,
  };
}

/** A time as Go writes it: no zeros at the end of the fraction. */
function goTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.?0+Z$/, "Z");
}

/** Fields of the operator's own that can't be set. */
const BUILTIN_FIELDS = ["buildConfig", "builderPlatform", "platform"];

/**
 * Checks fields that an operator adds to every provenance of a builder.
 *
 * @throws BuildError `invalid_argument` for fields that the builder fills itself.
 */
export function checkProvenanceEnvironment(environment: Readonly<Record<string, unknown>>): void {
  for (const key of BUILTIN_FIELDS) {
    if (!Object.hasOwn(environment, key)) continue;
    throw new BuildError(
      "invalid_argument",
      `key "${key}" is builtin and not allowed to be modified in provenance config`,
    );
  }
}
