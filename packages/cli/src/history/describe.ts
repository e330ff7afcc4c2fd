/** A build record in words: what was built, how it went and what it's tied to. */
import { isAbsolute, join, relative } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { StatusSchema } from "@kiln/api/rpcstatus";
import { failureOf, timeOf } from "@kiln/client";
import type { BuildPlace } from "@kiln/driver";
import { csvFields } from "@kiln/formats";
import { codeOfNumber, errorFromStatus, goCodeName } from "@kiln/grpc/client";
import { formatPlatformAll, parsePlatform } from "@kiln/oci";
import { sanitizeText, sourceExcerpt } from "@kiln/progress";
import { isTrue } from "../build/outputs.ts";
import { rfc3339 } from "../go-records.ts";
import { type Attachment, listAttachments } from "./attachments.ts";
import { createdAt, durationNs, type FoundRecord } from "./query.ts";

/** Log lines of the failed step that are kept. */
const MAX_LOG_LINES = 16;

/** One name with its value. */
export interface NamedValue {
  readonly Name: string;
  readonly Value: string | undefined;
}

/** The description; keys are those of Buildx's JSON, absent ones undefined. */
export interface RecordDescription {
  readonly Name: string | undefined;
  readonly Ref: string;
  readonly Context: string | undefined;
  readonly Dockerfile: string | undefined;
  readonly VCSRepository: string | undefined;
  readonly VCSRevision: string | undefined;
  readonly Target: string | undefined;
  readonly Platform: readonly string[] | undefined;
  readonly KeepGitDir: true | undefined;
  readonly NamedContexts: readonly NamedValue[] | undefined;
  readonly StartedAt: string;
  readonly CompletedAt: string | undefined;
  readonly Duration: bigint | undefined;
  readonly Status: "running" | "completed" | "failed" | "canceled";
  readonly Error: RecordError | undefined;
  readonly NumCompletedSteps: number;
  readonly NumTotalSteps: number;
  readonly NumCachedSteps: number;
  readonly BuildArgs: readonly NamedValue[] | undefined;
  readonly Labels: readonly NamedValue[] | undefined;
  readonly Config: RecordConfig;
  readonly Materials:
    | readonly { readonly URI: string; readonly Digests: readonly string[] | undefined }[]
    | undefined;
  readonly Attachments:
    | readonly { readonly Digest: string; readonly Platform: string | undefined; readonly Type: string }[]
    | undefined;
}

/** Why a build failed. */
export interface RecordError {
  readonly Code: number | undefined;
  readonly Message: string | undefined;
  readonly Name: string | undefined;
  readonly Logs: readonly string[] | undefined;
  readonly Sources: Uint8Array | undefined;
}

/** The options of a build that aren't arguments or labels; texts, lists or `true`. */
export type RecordConfig = Readonly<
  Record<string, string | true | readonly string[] | readonly NamedValue[] | undefined>
>;

const CONFIG_ATTRS: readonly (readonly [name: string, attr: string])[] = [
  ["Network", "force-network-mode"],
  ["ExtraHosts", "add-hosts"],
  ["Hostname", "hostname"],
  ["CgroupParent", "cgroup-parent"],
  ["ImageResolveMode", "image-resolve-mode"],
  ["MultiPlatform", "multi-platform"],
  ["NoCache", "no-cache"],
  ["ShmSize", "shm-size"],
  ["Ulimit", "ulimit"],
  ["Memory", "memory"],
  ["MemorySwap", "memswap"],
  ["CPUShares", "cpushares"],
  ["CPUPeriod", "cpuperiod"],
  ["CPUQuota", "cpuquota"],
  ["CPUSetCPUs", "cpusetcpus"],
  ["CPUSetMems", "cpusetmems"],
  ["CacheMountNS", "build-arg:BUILDKIT_CACHE_MOUNT_NS"],
  ["DockerfileCheckConfig", "build-arg:BUILDKIT_DOCKERFILE_CHECK"],
  ["SourceDateEpoch", "build-arg:SOURCE_DATE_EPOCH"],
  ["SandboxHostname", "build-arg:SANDBOX_HOSTNAME"],
];

/** Describes a record. `place` is where it was built on this machine, `shorten` makes a path short. */
export async function describeRecord(
  found: FoundRecord,
  place: BuildPlace | undefined,
  shorten: (path: string) => string,
): Promise<RecordDescription> {
  const { record } = found;
  const attrs = new Map(Object.entries(record.FrontendAttrs));
  attrs.delete("frontend.caps");
  const where = readPlace(attrs, place, shorten);
  const hasContext = attrs.has("context");
  const take = (name: string): string | undefined => {
    const value = attrs.get(name);
    attrs.delete(name);
    return value === "" ? undefined : value;
  };
  const attachments = await listAttachments(found);
  const error = await describeError(found);
  const completed = timeOf(record.CompletedAt);
  const target = take("target");
  const platform = take("platform")
    ?.split(",")
    .map((text) => formatPlatformAll(parsePlatform(text)));
  const keepsGitDir = isTrue(take("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"));
  const config = readConfig(attrs);
  return {
    Name: found.name || undefined,
    Ref: record.Ref,
    Context: where.context || undefined,
    Dockerfile: where.dockerfile || undefined,
    VCSRepository: hasContext ? undefined : attrs.get("vcs:source"),
    VCSRevision: hasContext ? undefined : attrs.get("vcs:revision"),
    Target: target,
    Platform: platform,
    KeepGitDir: keepsGitDir ? true : undefined,
    NamedContexts: namedValues(attrs, "context:"),
    StartedAt: rfc3339(createdAt(found)),
    CompletedAt: completed === undefined ? undefined : rfc3339(completed),
    Duration: durationNs(found) || undefined,
    Status: statusName(found),
    Error: error,
    NumCompletedSteps: record.numCompletedSteps,
    NumTotalSteps: record.numTotalSteps,
    NumCachedSteps: record.numCachedSteps,
    BuildArgs: namedValues(attrs, "build-arg:"),
    Labels: namedValues(attrs, "label:"),
    Config: { ...config, RestRaw: unusedAttrs(attrs) },
    Materials: await materials(found, attachments),
    Attachments: attachments.length > 0 ? attachments.map(attachmentJson) : undefined,
  };
}

function statusName({ record }: FoundRecord): RecordDescription["Status"] {
  if (record.error) return codeOfNumber(record.error.code) === "canceled" ? "canceled" : "failed";
  return record.CompletedAt === undefined ? "running" : "completed";
}

/** `Unknown failed to solve: …`: the code's name and the message. */
export function errorLine(error: RecordError): string {
  return `${goCodeName(codeOfNumber(error.Code ?? 2))} ${error.Message ?? ""}`;
}

function readPlace(
  attrs: Map<string, string>,
  place: BuildPlace | undefined,
  shorten: (path: string) => string,
): { context: string; dockerfile: string } {
  let context = place?.localPath ?? "";
  let dockerfile = place?.dockerfilePath ?? "";
  if (dockerfile !== "" && dockerfile !== "-" && isAbsolute(context)) {
    const inside = relative(context, dockerfile);
    if (!inside.startsWith("../")) dockerfile = inside;
  }
  if (isAbsolute(context)) context = shorten(context);
  if (context === "") {
    context = attrs.get("context") ?? "";
    attrs.delete("context");
  }
  if (dockerfile === "")
    dockerfile = join(attrs.get("vcs:localdir:dockerfile") ?? "", attrs.get("filename") ?? "");
  attrs.delete("filename");
  return { context, dockerfile: dockerfile === "." ? "" : dockerfile };
}

function readConfig(attrs: Map<string, string>): RecordConfig {
  const config: Record<string, string | true | readonly string[] | undefined> = {};
  const multi = attrs.get("build-arg:BUILDKIT_MULTI_PLATFORM");
  attrs.delete("build-arg:BUILDKIT_MULTI_PLATFORM");
  for (const [name, attr] of CONFIG_ATTRS) {
    const value = attrs.get(attr);
    attrs.delete(attr);
    if (name === "MultiPlatform") config[name] = isTrue(value ?? multi) ? true : undefined;
    else if (name === "NoCache") {
      config.NoCache = value === "" ? true : undefined;
      config.NoCacheFilter = value ? value.split(",") : undefined;
    } else if (name === "ExtraHosts") config[name] = value ? csvFields(value) : undefined;
    else config[name] = value || undefined;
  }
  return config;
}

function namedValues(attrs: ReadonlyMap<string, string>, prefix: string): NamedValue[] | undefined {
  const values = [...attrs]
    .filter(([key]) => key.startsWith(prefix))
    .map(([key, value]) => ({ Name: key.slice(prefix.length), Value: value || undefined }))
    .sort((a, b) => (a.Name < b.Name ? -1 : 1));
  return values.length > 0 ? values : undefined;
}

function unusedAttrs(attrs: ReadonlyMap<string, string>): NamedValue[] | undefined {
  const values = [...attrs]
    .filter(([key]) => !/^(vcs|build-arg|label|context|attest):/.test(key))
    .map(([Name, value]) => ({ Name, Value: value || undefined }))
    .sort((a, b) => (a.Name < b.Name ? -1 : 1));
  return values.length > 0 ? values : undefined;
}

function attachmentJson({ digest, platform, type }: Attachment): {
  Digest: string;
  Platform: string | undefined;
  Type: string;
} {
  return { Digest: digest, Platform: platform || undefined, Type: type };
}

async function materials(
  { client }: FoundRecord,
  attachments: readonly Attachment[],
): Promise<RecordDescription["Materials"]> {
  const provenance = attachments.find(({ type }) => type.startsWith("https://slsa.dev/provenance/"));
  if (!provenance) return undefined;
  const predicate = JSON.parse(new TextDecoder().decode(await client.readBlob(provenance.digest))) as {
    materials?: Material[];
    buildDefinition?: { resolvedDependencies?: Material[] };
  };
  const list = predicate.buildDefinition?.resolvedDependencies ?? predicate.materials ?? [];
  if (list.length === 0) return undefined;
  return list.map(({ uri, digest = {} }) => {
    const digests = Object.entries(digest).map(([algorithm, hex]) => `${algorithm}:${hex}`);
    return { URI: uri, Digests: digests.length > 0 ? digests : undefined };
  });
}

interface Material {
  readonly uri: string;
  readonly digest?: Readonly<Record<string, string>>;
}

async function describeError(found: FoundRecord): Promise<RecordError | undefined> {
  const { record, client } = found;
  if (!record.error && !record.externalError) return undefined;
  const code = record.error?.code || undefined;
  const message = record.error?.message || undefined;
  if (!record.externalError) {
    return { Code: code, Message: message, Name: undefined, Logs: undefined, Sources: undefined };
  }
  const status = fromBinary(StatusSchema, await client.readBlob(record.externalError.digest));
  const failure = failureOf(errorFromStatus(status));
  const sources = failure.sources.map(({ source, ranges }) => `${sourceExcerpt(source, ranges)}\n`).join("");
  const step = failure.vertex === undefined ? undefined : await vertexLogs(found, failure.vertex);
  return {
    Code: code,
    Message: message,
    Name: step?.name || undefined,
    Logs: step && step.logs.length > 0 ? step.logs : undefined,
    Sources: sources === "" ? undefined : new TextEncoder().encode(sources),
  };
}

async function vertexLogs(
  { client, record }: FoundRecord,
  digest: string,
): Promise<{ name: string; logs: string[] }> {
  let name = "";
  const texts = new Map<number, string>();
  for await (const status of client.status(record.Ref)) {
    name = status.vertexes.findLast((vertex) => vertex.digest === digest)?.name ?? name;
    for (const log of status.logs) {
      if (log.vertex !== digest) continue;
      texts.set(log.stream, (texts.get(log.stream) ?? "") + new TextDecoder().decode(log.data));
    }
  }
  const logs = sanitizeText([...texts.values()].join(""))
    .split("\n")
    .filter((line) => line !== "");
  return { name, logs: logs.slice(-MAX_LOG_LINES) };
}
