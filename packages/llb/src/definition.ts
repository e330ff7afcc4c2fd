import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Definition as DefinitionMessage,
  DefinitionSchema,
  type OpMetadata as OpMetadataMessage,
  OpMetadataSchema,
  OpSchema,
  type Source as SourceMessage,
  SourceSchema,
} from "@kiln/api/pb";
import { type Digest, sha256 } from "@kiln/oci";
import { Cap } from "./caps.ts";
import { encodeOp } from "./encode-op.ts";
import { type LinuxResources, mergeMetadata, type OpMetadata } from "./metadata.ts";
import {
  type DefinitionSource,
  type IndexedLocation,
  SourceCollector,
  type SourceMap,
} from "./source-map.ts";
import { inputOf, type MarshalOptions, type Output, type Vertex } from "./vertex.ts";
import { compareUtf8 } from "./wire.ts";

/** A build graph in wire form: ops in topological order, the last of which only names the result. */
export interface Definition {
  readonly def: readonly Uint8Array[];
  readonly metadata: ReadonlyMap<Digest, OpMetadata>;
  readonly source?: DefinitionSource | undefined;
}

/** The definition of the empty file system. */
export const emptyDefinition: Definition = { def: [], metadata: new Map() };

/** Encodes everything that `output` depends on. */
export function marshalOutput(output: Output | undefined, options: MarshalOptions): Definition {
  const head = output?.vertex();
  if (output === undefined || head === undefined) return emptyDefinition;
  const def: Uint8Array[] = [];
  const metadata = new Map<Digest, OpMetadata>();
  const sources = new SourceCollector();
  const seen = new Set<Digest>();
  for (const vertex of topological(head)) {
    const { digest, bytes, metadata: own, locations } = vertex.marshal(options);
    metadata.set(digest, mergeMetadata(metadata.get(digest), own));
    sources.add(digest, locations);
    if (seen.has(digest)) continue;
    seen.add(digest);
    def.push(bytes);
  }
  const last = encodeOp({ inputs: [inputOf(output, options)] });
  def.push(last);
  metadata.set(sha256(last), headMetadata(metadata.values()));
  return { def, metadata, source: sources.finish() };
}

function headMetadata(all: Iterable<OpMetadata>): OpMetadata {
  const caps = new Set<string>([Cap.constraints, Cap.platform]);
  for (const own of all) {
    if (own.ignoreCache) caps.add(Cap.metaIgnoreCache);
    if (own.description.size > 0) caps.add(Cap.metaDescription);
    if (own.exportCache !== undefined) caps.add(Cap.metaExportCache);
  }
  return { ignoreCache: false, description: new Map(), caps };
}

/** Inputs before users, depth first, without recursion: chains of steps can be long. */
function topological(head: Vertex): Vertex[] {
  const order: Vertex[] = [];
  const seen = new Set<Vertex>([head]);
  const stack = [{ vertex: head, inputs: head.inputs(), next: 0 }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    if (top.next === top.inputs.length) {
      order.push(top.vertex);
      stack.pop();
      continue;
    }
    const vertex = top.inputs[top.next++]!.vertex();
    if (vertex === undefined || seen.has(vertex)) continue;
    seen.add(vertex);
    stack.push({ vertex, inputs: vertex.inputs(), next: 0 });
  }
  return order;
}

/** The vertex that the definition's result is an output of; undefined for the empty one. */
export function headDigest(definition: Definition): Digest | undefined {
  const last = definition.def.at(-1);
  if (last === undefined) return undefined;
  return fromBinary(OpSchema, last).inputs[0]?.digest as Digest | undefined;
}

/** The protobuf message, for requests. */
export function definitionMessage(definition: Definition): DefinitionMessage {
  const message = create(DefinitionSchema, { def: [...definition.def] });
  for (const digest of [...definition.metadata.keys()].sort(compareUtf8)) {
    message.metadata[digest] = metadataMessage(definition.metadata.get(digest)!);
  }
  if (definition.source !== undefined) message.Source = sourceMessage(definition.source);
  return message;
}

/** Bytes of {@link definitionMessage}. */
export function encodeDefinition(definition: Definition): Uint8Array {
  return toBinary(DefinitionSchema, definitionMessage(definition));
}

/** The protobuf message of an op's metadata. */
export function metadataMessage(own: OpMetadata): OpMetadataMessage {
  const message = create(OpMetadataSchema, { ignoreCache: own.ignoreCache });
  for (const key of [...own.description.keys()].sort(compareUtf8)) {
    setKey(message.description, key, own.description.get(key)!);
  }
  for (const cap of [...own.caps].sort(compareUtf8)) setKey(message.caps, cap, true);
  const group = own.progressGroup;
  const resources = own.linuxResources;
  const init = create(OpMetadataSchema, {
    ...(own.exportCache === undefined ? {} : { exportCache: { Value: own.exportCache } }),
    ...(group === undefined
      ? {}
      : { progressGroup: { id: group.id, name: group.name, weak: group.weak ?? false } }),
    ...(resources === undefined ? {} : { linuxResources: resourcesInit(resources) }),
  });
  message.exportCache = init.exportCache;
  message.progressGroup = init.progressGroup;
  message.linuxResources = init.linuxResources;
  return message;
}

function resourcesInit(r: LinuxResources) {
  return {
    memory: r.memory ?? 0n,
    memorySwap: r.memorySwap ?? 0n,
    cpuShares: r.cpuShares ?? 0n,
    cpuPeriod: r.cpuPeriod ?? 0n,
    cpuQuota: r.cpuQuota ?? 0n,
    cpusetCpus: r.cpusetCpus ?? "",
    cpusetMems: r.cpusetMems ?? "",
  };
}

/** Sets a key that may be `__proto__`. */
function setKey<T>(record: Record<string, T>, key: string, value: T): void {
  Object.defineProperty(record, key, { value, enumerable: true, configurable: true, writable: true });
}

/** The protobuf message of a source map. */
export function sourceMessage(source: DefinitionSource): SourceMessage {
  const message = create(SourceSchema, { infos: source.infos.map(infoInit) });
  for (const digest of [...source.locations.keys()].sort(compareUtf8)) {
    const { locations } = create(SourceSchema, {
      locations: { [digest]: { locations: source.locations.get(digest)!.map(copyLocation) } },
    });
    message.locations[digest] = locations[digest]!;
  }
  return message;
}

function copyLocation(location: IndexedLocation) {
  return {
    sourceIndex: location.sourceIndex,
    ranges: location.ranges.map(({ start, end }) => ({ start, end })),
  };
}

function infoInit(map: SourceMap) {
  return {
    filename: map.filename,
    language: map.language,
    data: map.data,
    ...(map.definition === undefined ? {} : { definition: definitionMessage(map.definition) }),
  };
}
