/** A build request in the words of the wire: frontend, frontend attributes, exporters, entitlements. */
import { isIP } from "node:net";
import type { AnnotationOption, AttestOption, BuildRequest, ResourceOption } from "@kiln/bake";
import { BuildError, errorMessage } from "@kiln/base";
import { formatUlimit } from "@kiln/formats";
import { formatPlatformAll, formatReference, parseBareReference, parsePlatform } from "@kiln/oci";
import { usageError } from "../command/flags.ts";
import { isTrue, type PreparedOutput } from "./outputs.ts";
import { envBool } from "./request-from-flags.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** What a node's daemon can do and knows about itself. */
export interface NodeFacts {
  /** Ids of LLB capabilities. */
  readonly caps: ReadonlySet<string>;
  /** Proxy settings for builds, as build arguments. */
  readonly proxyArgs: ReadonlyMap<string, string>;
  /** The address of the host as containers see it, if the daemon knows it. */
  readonly hostGateway?: string;
}

/** Frontend, attributes and entitlements of a request. */
export interface SolveAttrs {
  readonly frontend: string;
  readonly attrs: Map<string, string>;
  readonly entitlements: readonly string[];
}

/** Turns a request into frontend attributes; those of its inputs aren't among them. */
export function solveAttrs(
  request: BuildRequest,
  node: NodeFacts,
  opts: { readonly env: Env; readonly spansNodes: boolean },
): SolveAttrs {
  const attrs = new Map<string, string>();
  const frontend = chooseFrontend(request, attrs);
  if (opts.spansNodes || isTrue(request.args.get("BUILDKIT_MULTI_PLATFORM")))
    attrs.set("multi-platform", "true");
  addAttestations(request.attests, attrs, { caps: node.caps, env: opts.env });
  for (const [key, value] of request.args) attrs.set(`build-arg:${key}`, value);
  for (const [key, value] of request.labels) attrs.set(`label:${key}`, value);
  if (request.pull) attrs.set("image-resolve-mode", "pull");
  if (request.target !== "") attrs.set("target", request.target);
  if (request.noCacheFilter.length > 0) attrs.set("no-cache", request.noCacheFilter.join(","));
  if (request.noCache) attrs.set("no-cache", "");
  const argNames = new Set([...request.args.keys()].map((key) => key.toLowerCase()));
  for (const [key, value] of node.proxyArgs) {
    if (!argNames.has(key.toLowerCase())) attrs.set(`build-arg:${key}`, value);
  }
  if (request.platforms.length > 0) {
    attrs.set("platform", request.platforms.map((text) => formatPlatformAll(parsePlatform(text))).join(","));
  }
  const entitlements = [...request.entitlements];
  addNetwork(request.network, attrs, entitlements);
  const hosts = request.extraHosts.flatMap((host) => extraHost(host, node.hostGateway));
  if (hosts.length > 0) attrs.set("add-hosts", hosts.join(","));
  if (request.shmSizeBytes > 0) attrs.set("shm-size", String(request.shmSizeBytes));
  if (request.ulimits.length > 0) {
    const limits = request.ulimits.map(({ name, soft, hard }) =>
      formatUlimit({ name, soft: BigInt(soft), hard: BigInt(hard) }),
    );
    attrs.set("ulimit", limits.join(","));
  }
  addResources(request.resources, attrs);
  return { frontend, attrs, entitlements };
}

function chooseFrontend(request: BuildRequest, attrs: Map<string, string>): string {
  const syntax = request.args.get("BUILDKIT_SYNTAX");
  if (syntax === undefined) return "dockerfile.v0";
  const command = syntax.trim();
  if (command === "") {
    throw usageError(
      "empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior",
    );
  }
  attrs.set("source", command.split(" ")[0] as string);
  attrs.set("cmdline", syntax);
  return "gateway.v0";
}

function addAttestations(
  attests: readonly AttestOption[],
  attrs: Map<string, string>,
  node: { readonly caps: ReadonlySet<string>; readonly env: Env },
): void {
  const isSupported = node.caps.has("exporter.image.attestations");
  const enabled = attests.filter(({ disabled }) => !disabled);
  if (enabled.length > 0 && !isSupported) {
    throw new BuildError("unimplemented", "Attestations are not supported by the current BuildKit daemon");
  }
  for (const attest of enabled) attrs.set(`attest:${attest.type}`, attestText(attest));
  if (!isSupported || attests.some(({ type }) => type === "provenance")) return;
  if (envBool(node.env, "BUILDX_NO_DEFAULT_ATTESTATIONS")) return;
  attrs.set("attest:provenance", "mode=min,inline-only=true");
}

function attestText(attest: AttestOption): string {
  const pairs = [...attest.attrs]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  return [`type=${attest.type}`, ...pairs]
    .map((pair) => (/[",]/.test(pair) ? `"${pair.replaceAll('"', '""')}"` : pair))
    .join(",");
}

function addNetwork(network: string, attrs: Map<string, string>, entitlements: string[]): void {
  switch (network) {
    case "":
    case "default":
      return;
    case "host":
      attrs.set("force-network-mode", "host");
      if (!entitlements.includes("network.host")) entitlements.push("network.host");
      return;
    case "none":
      attrs.set("force-network-mode", "none");
      return;
    default:
      throw usageError(
        `network mode ${JSON.stringify(network)} not supported by buildkit - you can define a custom network for your builder using the network driver-opt in buildx create`,
      );
  }
}

function extraHost(text: string, hostGateway: string | undefined): string[] {
  const equals = text.indexOf("=");
  const host = text.slice(0, equals);
  const addresses = text.slice(equals + 1);
  if (addresses === "host-gateway") {
    if (hostGateway === undefined) {
      throw new BuildError(
        "failed_precondition",
        "unable to derive the IP value for host-gateway: host-gateway is not supported by this driver",
      );
    }
    return [`${host}=${hostGateway}`];
  }
  return addresses.split(",").map((part) => {
    const address = part.replace(/^\[(.+)\]$/, "$1");
    if (isIP(address) === 0) throw usageError(`invalid host ${text}`);
    return `${host}=${address}`;
  });
}

function addResources(resources: ResourceOption, attrs: Map<string, string>): void {
  const set = (name: string, value: number | string | undefined): void => {
    if (value !== undefined && value !== 0 && value !== "") attrs.set(name, String(value));
  };
  set("memory", resources.memoryBytes);
  set("memswap", resources.memorySwapBytes);
  set("cpushares", resources.cpuShares);
  set("cpuperiod", resources.cpuPeriod);
  set("cpuquota", resources.cpuQuota);
  set("cpusetcpus", resources.cpusetCpus);
  set("cpusetmems", resources.cpusetMems);
}

/** Puts names, annotations and defaults into the outputs' attributes. `cacheonly` is dropped. */
export function finishOutputs(
  outputs: readonly PreparedOutput[],
  request: BuildRequest,
  opts: { readonly caps: ReadonlySet<string>; readonly env: Env },
): PreparedOutput[] {
  const tags = request.tags.map(checkedTag);
  const supportsAttestations = opts.caps.has("exporter.image.attestations");
  const noArtifact = supportsAttestations && envBool(opts.env, "BUILDX_NO_DEFAULT_OCI_ARTIFACT");
  if (outputs.length > 1 && !opts.caps.has("exporter.multiple")) {
    throw new BuildError(
      "unimplemented",
      "multiple outputs currently unsupported by the current BuildKit daemon, please upgrade to version v0.13+ or use a single output",
    );
  }
  const needsManifestList = request.platforms.length > 1 || request.attests.some(({ disabled }) => !disabled);
  for (const output of outputs) {
    const { type, attrs } = output;
    if (needsManifestList && type === "docker" && output.target.kind === "file") {
      throw new BuildError(
        "unimplemented",
        "docker exporter does not support exporting manifest lists, use the oci exporter instead",
      );
    }
    output.needsManifestList = needsManifestList;
    for (const annotation of request.annotations) attrs.set(annotationKey(annotation), annotation.value);
    if (type !== "image" && type !== "oci" && type !== "docker") continue;
    if (tags.length > 0) attrs.set("name", tags.join(","));
    else if (type === "image" && !attrs.get("name") && isTrue(attrs.get("push"))) {
      throw usageError("tag is needed when pushing to registry");
    }
    const buildInfo = request.args.get("BUILDKIT_INLINE_BUILDINFO_ATTRS");
    if (buildInfo !== undefined) attrs.set("buildinfo-attrs", buildInfo);
    if (noArtifact && type !== "docker" && !attrs.has("oci-artifact")) attrs.set("oci-artifact", "false");
  }
  return outputs.filter(({ type }) => type !== "cacheonly");
}

function checkedTag(tag: string): string {
  try {
    return formatReference(parseBareReference(tag));
  } catch (error) {
    throw new BuildError("invalid_argument", `invalid tag ${JSON.stringify(tag)}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function annotationKey(annotation: AnnotationOption): string {
  const type = annotation.type === "" ? "" : `-${annotation.type}`;
  const platform = annotation.platform === undefined ? "" : `[${annotation.platform}]`;
  return `annotation${type}${platform}.${annotation.key}`;
}
