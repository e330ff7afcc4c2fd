/** Puts a finished build's provenance, as its record has it, into the metadata of the build. */
import type { BuildResultInfo, Descriptor } from "@kiln/api/control";
import type { BuildkitClient } from "@kiln/client";
import { asVertex } from "@kiln/driver";
import type { SolveStatus } from "@kiln/progress";

const PREDICATE = "in-toto.io/predicate-type";
const SLSA_V1 = "https://slsa.dev/provenance/v1";

/** Adds `buildx.build.provenance[/platform]` to the response, in the shape of SLSA 0.2. */
export async function addProvenance(
  response: Map<string, string>,
  build: {
    readonly client: BuildkitClient;
    readonly ref: string;
    readonly mode: "min" | "max";
    readonly onStatus: (status: SolveStatus) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  await asVertex("resolving provenance for metadata file", build.onStatus, async () => {
    const { client, ref, signal } = build;
    for await (const { record } of client.history({ Ref: ref, EarlyExit: true }, { signal })) {
      if (!record) continue;
      const results = Object.entries(record.Results);
      const named: [string, BuildResultInfo][] = results.map(([id, info]) => [`/${id}`, info]);
      if (named.length === 0 && record.Result) named.push(["", record.Result]);
      for (const [suffix, info] of named) {
        const found = provenanceOf(info);
        if (!found) continue;
        const text = new TextDecoder().decode(await client.readBlob(found.digest, undefined, { signal }));
        const predicate = toSlsa02(JSON.parse(text), found.annotations[PREDICATE] === SLSA_V1);
        if (build.mode === "min") {
          delete predicate.buildConfig;
          delete predicate.metadata;
        }
        response.set(
          `buildx.build.provenance${suffix}`,
          Buffer.from(JSON.stringify(predicate)).toString("base64"),
        );
      }
    }
  });
}

function provenanceOf(info: BuildResultInfo): Descriptor | undefined {
  return info.Attestations.find(
    ({ mediaType, annotations }) =>
      mediaType === "application/vnd.in-toto+json" &&
      (annotations[PREDICATE] ?? "").startsWith("https://slsa.dev/provenance/"),
  );
}

type Fields = Record<string, unknown>;

/** A predicate in the shape of SLSA 0.2; one of version 1 is rearranged. */
function toSlsa02(predicate: Fields, isV1: boolean): Fields {
  if (!isV1) return predicate;
  const definition = fieldsOf(predicate.buildDefinition);
  const details = fieldsOf(predicate.runDetails);
  const external = fieldsOf(definition.externalParameters);
  const internal = fieldsOf(definition.internalParameters);
  const metadata = fieldsOf(details.metadata);
  const { buildConfig, builderPlatform, ...environment } = internal;
  return dropUndefined({
    builder: details.builder,
    buildType: "https://mobyproject.org/buildkit@v1",
    materials: Array.isArray(definition.resolvedDependencies)
      ? definition.resolvedDependencies.map((item: Fields) =>
          dropUndefined({ uri: item.uri, digest: item.digest }),
        )
      : undefined,
    invocation: dropUndefined({
      configSource: renameKeys(fieldsOf(external.configSource), { path: "entryPoint" }),
      parameters: external.request,
      environment: sorted(dropUndefined({ ...environment, platform: builderPlatform })),
    }),
    buildConfig,
    metadata: Object.keys(metadata).length === 0 ? undefined : metadataOf(metadata),
  });
}

function metadataOf(metadata: Fields): Fields {
  const { invocationId, startedOn, finishedOn, buildkit_completeness, buildkit_hermetic, ...rest } = metadata;
  const completeness = fieldsOf(buildkit_completeness);
  const vcs = fieldsOf(rest.buildkit_metadata).vcs;
  const { buildkit_metadata: buildkit, ...others } = rest;
  return dropUndefined({
    buildInvocationID: invocationId,
    buildStartedOn: startedOn,
    buildFinishedOn: finishedOn,
    completeness: {
      parameters: true,
      environment: true,
      materials: completeness.resolvedDependencies ?? false,
    },
    reproducible: rest.buildkit_reproducible ?? false,
    "https://mobyproject.org/buildkit@v1#hermetic": buildkit_hermetic,
    "https://mobyproject.org/buildkit@v1#metadata": buildkit ?? (vcs === undefined ? undefined : { vcs }),
    ...Object.fromEntries(Object.entries(others).filter(([key]) => !key.startsWith("buildkit_"))),
  });
}

function renameKeys(fields: Fields, names: Readonly<Record<string, string>>): Fields {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [names[key] ?? key, value]));
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function sorted(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function dropUndefined(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
