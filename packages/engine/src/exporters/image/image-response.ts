import { descriptorJson } from "@kiln/oci";
import { type GoJson, goJsonText } from "../../cache-digest/go-json.ts";
import type { ExportOptions, ExportSource } from "../exporter.ts";
import { parseAnnotations } from "./annotations.ts";
import type { CommitOptions } from "./commit-options.ts";
import type { FinalCommitOptions, WrittenImage } from "./image-writer.ts";

/** From this version on OCI types are the default (buildkit.md §4.9, §6.1). */
const OCI_BY_DEFAULT = 30;

/** A result with attributes of the exporter among its metadata. */
export function mergedSource(source: ExportSource, attrs: ReadonlyMap<string, string>): ExportSource {
  if (attrs.size === 0) return source;
  const encoder = new TextEncoder();
  const metadata = new Map(source.metadata);
  for (const [key, value] of attrs) metadata.set(key, encoder.encode(value));
  return { ...source, metadata };
}

/** Decides what was left open: by the result, the exporter and the compatibility version. */
export function finalOptions(
  options: CommitOptions,
  source: ExportSource,
  { compatibilityVersion }: ExportOptions,
  exporter: { readonly attestationInline: boolean; readonly ociTypes: true | undefined },
): FinalCommitOptions {
  const decoder = new TextDecoder();
  const texts = new Map([...source.metadata].map(([key, value]) => [key, decoder.decode(value)]));
  const ociTypes =
    options.ociTypes ??
    exporter.ociTypes ??
    (compatibilityVersion >= OCI_BY_DEFAULT || source.attestations.size > 0);
  const frontendName = texts.get("image.name");
  return {
    ...options,
    name: options.name === "*" && frontendName !== undefined ? frontendName : options.name,
    annotations: options.annotations.with(parseAnnotations(texts).annotations),
    ociTypes,
    ociArtifact: options.ociArtifact ?? (compatibilityVersion >= OCI_BY_DEFAULT && ociTypes),
    attestationInline: options.attestationInline ?? exporter.attestationInline,
  };
}

/** What the client is told of a finished image (buildkit.md §6.2). */
export function responseOf(image: WrittenImage, name: string): Map<string, string> {
  const json = goJsonText(descriptorJson(image.descriptor) as GoJson);
  return new Map([
    ...(name === "" ? [] : ([["image.name", name]] as const)),
    ["containerimage.digest", image.descriptor.digest],
    ...(image.configDigest === undefined
      ? []
      : ([["containerimage.config.digest", image.configDigest]] as const)),
    ["containerimage.descriptor", Buffer.from(json).toString("base64")],
  ]);
}
