import { BuildError } from "@kiln/base";
import { PLATFORMS_KEY, type ResultPlatform, resultPlatforms } from "../../solve/result-platforms.ts";
import type { ExportSource } from "../exporter.ts";
import { boolAttr, epochAttr, resultEpoch } from "../parse-attrs.ts";

/** Attributes of `type=local` and `type=tar`. Others are left to other exporters, as upstream does. */
export interface FileExporterOptions {
  /** Seconds; `null` when the attribute was given empty. */
  readonly epoch: number | null | undefined;
  readonly attestationPrefix: string;
  readonly platformSplit: boolean | undefined;
  readonly mode: "copy" | "delete";
}

/** @throws BuildError `invalid_argument`. */
export function parseFileExporterOptions(attrs: ReadonlyMap<string, string>): FileExporterOptions {
  const epoch = attrs.get("source-date-epoch");
  const split = attrs.get("platform-split");
  const mode = attrs.get("mode") ?? "";
  if (mode !== "" && mode !== "copy" && mode !== "delete") {
    throw new BuildError("invalid_argument", `invalid local exporter mode ${JSON.stringify(mode)}`);
  }
  return {
    epoch: epoch === undefined ? undefined : (epochAttr("source-date-epoch", epoch) ?? null),
    attestationPrefix: attrs.get("attestation-prefix") ?? "",
    platformSplit: split === undefined ? undefined : boolAttr("platform-split", split),
    mode: mode === "delete" ? "delete" : "copy",
  };
}

/** The platforms of a result, checked. */
export function outputPlatforms(source: ExportSource): readonly ResultPlatform[] {
  const keyed = (source.refs?.size ?? 0) > 0;
  if (keyed && !source.metadata.has(PLATFORMS_KEY)) {
    throw new BuildError("invalid_argument", "unable to export multiple refs, missing platforms mapping");
  }
  const platforms = resultPlatforms(source.metadata);
  if (!keyed && platforms.length > 1) {
    throw new BuildError("invalid_argument", "unable to export multiple platforms without map");
  }
  return platforms;
}

/** The tree of a platform. @throws BuildError for one that the result doesn't have. */
export function outputRef(source: ExportSource, id: string): ExportSource["ref"] {
  const { refs } = source;
  if (refs === undefined || refs.size === 0) return source.ref;
  if (!refs.has(id)) throw new BuildError("invalid_argument", `failed to find ref for ID ${id}`);
  return refs.get(id);
}

/** The time of a platform's files. */
export function outputEpoch(
  options: FileExporterOptions,
  source: ExportSource,
  id: string,
): number | undefined {
  if (options.epoch !== undefined) return options.epoch ?? undefined;
  return resultEpoch(source.metadata, id);
}
