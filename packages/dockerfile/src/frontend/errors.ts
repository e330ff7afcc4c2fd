import { errorDetailTypes } from "@kiln/api";
import { BuildError, isBuildError, type WireDetail } from "@kiln/base";
import { base64FromBytes, goJson } from "@kiln/formats";
import type { Definition, OpMetadata, Range, SourceMap } from "@kiln/llb";
import type { Problem } from "../base/problem.ts";

const encoder = new TextEncoder();

/** A problem as the error that leaves this package; each set of ranges becomes a detail. */
export function buildErrorOf(problem: Problem, source: SourceMap | undefined): BuildError {
  const inner = isBuildError(problem.cause) ? problem.cause.wire : [];
  const own = source === undefined ? [] : problem.locations.map((ranges) => sourceDetail(source, ranges));
  return new BuildError(problem.code, problem.message, {
    cause: problem.cause,
    wire: [...own.reverse(), ...inner],
  });
}

/** Positions in a file, as BuildKit's clients read them from an error. */
export function sourceDetail(source: SourceMap, ranges: readonly Range[]): WireDetail {
  const json = goJson({ info: sourceInfoJson(source), ranges: ranges.map(rangeJson) });
  return { typeUrl: errorDetailTypes.source, value: encoder.encode(json) };
}

/** True when an error says already where it comes from. */
export function hasSource(error: BuildError): boolean {
  return error.wire.some((detail) => detail.typeUrl === errorDetailTypes.source);
}

/** `pb.SourceInfo` as Go's encoding/json writes it. */
export function sourceInfoJson(source: SourceMap): object {
  return {
    filename: source.filename || undefined,
    data: source.data.length === 0 ? undefined : base64FromBytes(source.data),
    definition: source.definition && definitionJson(source.definition),
    language: source.language || undefined,
  };
}

function definitionJson(definition: Definition): object {
  const metadata = new Map([...definition.metadata].map(([digest, own]) => [digest, metadataJson(own)]));
  const source = definition.source;
  return {
    def: definition.def.length === 0 ? undefined : definition.def.map(base64FromBytes),
    metadata: metadata.size === 0 ? undefined : metadata,
    Source: source && {
      locations: new Map(
        [...source.locations].map(([digest, list]) => [
          digest,
          list.length === 0
            ? {}
            : {
                locations: list.map(({ sourceIndex, ranges }) => ({
                  sourceIndex: sourceIndex || undefined,
                  ranges: ranges.map(rangeJson),
                })),
              },
        ]),
      ),
      infos: source.infos.length === 0 ? undefined : source.infos.map(sourceInfoJson),
    },
  };
}

/** `pb.OpMetadata` as Go's encoding/json writes it. */
export function metadataJson(own: OpMetadata): object {
  const { progressGroup: group, linuxResources: resources } = own;
  return {
    ignore_cache: own.ignoreCache || undefined,
    description: own.description.size === 0 ? undefined : own.description,
    export_cache: own.exportCache === undefined ? undefined : { Value: own.exportCache || undefined },
    caps: own.caps.size === 0 ? undefined : new Map([...own.caps].map((cap) => [cap, true])),
    progress_group: group && {
      id: group.id || undefined,
      name: group.name || undefined,
      weak: group.weak || undefined,
    },
    linux_resources: resources && {
      memory: resources.memory || undefined,
      memorySwap: resources.memorySwap || undefined,
      cpuShares: resources.cpuShares || undefined,
      cpuPeriod: resources.cpuPeriod || undefined,
      cpuQuota: resources.cpuQuota || undefined,
      cpusetCpus: resources.cpusetCpus || undefined,
      cpusetMems: resources.cpusetMems || undefined,
    },
  };
}

/** `pb.Range` as Go's encoding/json writes it. */
export function rangeJson(range: Range): object {
  return { start: positionJson(range.start), end: positionJson(range.end) };
}

function positionJson({ line, character }: Range["start"]): object {
  return { line: line || undefined, character: character || undefined };
}
