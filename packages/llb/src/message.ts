import type { Definition as DefinitionMessage, OpMetadata as OpMetadataMessage } from "@kiln/api/pb";
import type { Digest } from "@kiln/oci";
import type { Definition } from "./definition.ts";
import type { OpMetadata } from "./metadata.ts";
import type { DefinitionSource, IndexedLocation, Range } from "./source-map.ts";

/** The definition in a protobuf message. */
export function definitionFromMessage(message: DefinitionMessage): Definition {
  const metadata = new Map<Digest, OpMetadata>();
  for (const digest of Object.keys(message.metadata)) {
    metadata.set(digest as Digest, metadataFromMessage(message.metadata[digest]!));
  }
  const source = message.Source === undefined ? undefined : sourceFromMessage(message.Source);
  return { def: message.def, metadata, source };
}

/** An op's metadata in a protobuf message. */
export function metadataFromMessage(message: OpMetadataMessage): OpMetadata {
  const { progressGroup: group, linuxResources: r } = message;
  return {
    ignoreCache: message.ignoreCache,
    description: new Map(Object.entries(message.description)),
    exportCache: message.exportCache?.Value,
    caps: new Set(Object.keys(message.caps)),
    progressGroup: group && { id: group.id, name: group.name, weak: group.weak },
    linuxResources: r && {
      memory: r.memory,
      memorySwap: r.memorySwap,
      cpuShares: r.cpuShares,
      cpuPeriod: r.cpuPeriod,
      cpuQuota: r.cpuQuota,
      cpusetCpus: r.cpusetCpus,
      cpusetMems: r.cpusetMems,
    },
  };
}

function sourceFromMessage(message: NonNullable<DefinitionMessage["Source"]>): DefinitionSource {
  const locations = new Map<string, IndexedLocation[]>();
  for (const digest of Object.keys(message.locations)) {
    const list = message.locations[digest]!.locations.map(({ sourceIndex, ranges }) => ({
      sourceIndex,
      ranges: ranges.map(
        ({ start, end }): Range => ({
          start: { line: start?.line ?? 0, character: start?.character ?? 0 },
          end: { line: end?.line ?? 0, character: end?.character ?? 0 },
        }),
      ),
    }));
    locations.set(digest, list);
  }
  const infos = message.infos.map(({ filename, language, data, definition }) => ({
    filename,
    language,
    data,
    definition: definition && definitionFromMessage(definition),
  }));
  return { infos, locations };
}
