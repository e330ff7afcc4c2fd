import { BuildError } from "@kiln/base";
import type { CompressionOptions } from "@kiln/store";
import { boolAttr, epochAttr } from "../parse-attrs.ts";
import { type AnnotationSet, parseAnnotations } from "./annotations.ts";

/** How an image is put together: the attributes that all image exporters share (buildkit.md §6.1). */
export interface CommitOptions {
  /** Comma-separated references; `*` stands for what the frontend says. */
  readonly name: string;
  readonly ociTypes: boolean | undefined;
  readonly ociArtifact: boolean | undefined;
  readonly attestationInline: boolean | undefined;
  readonly preferNonDistributable: boolean;
  readonly rewriteTimestamp: boolean;
  /** Seconds; undefined when the attribute wasn't given, `null` when it was given empty. */
  readonly epoch: number | null | undefined;
  readonly compression: CompressionOptions;
  readonly annotations: AnnotationSet;
}

const COMPRESSIONS = ["uncompressed", "gzip", "estargz", "zstd"] as const;

/** Reads them; what is left is for the exporter. @throws BuildError `invalid_argument`. */
export function parseCommitOptions(attrs: ReadonlyMap<string, string>): {
  readonly options: CommitOptions;
  readonly rest: Map<string, string>;
} {
  const { annotations, rest } = parseAnnotations(attrs);
  const take = (key: string): string | undefined => {
    const value = rest.get(key);
    rest.delete(key);
    return value;
  };
  const takeBool = (key: string): boolean | undefined => {
    const value = take(key);
    return value === undefined ? undefined : boolAttr(key, value);
  };
  const epoch = take("source-date-epoch");
  const options: CommitOptions = {
    name: take("name") ?? "",
    ociTypes: takeBool("oci-mediatypes"),
    ociArtifact: takeBool("oci-artifact"),
    attestationInline: takeBool("attestation-inline"),
    preferNonDistributable: takeBool("prefer-nondist-layers") ?? false,
    rewriteTimestamp: takeBool("rewrite-timestamp") ?? false,
    epoch: epoch === undefined ? undefined : (epochAttr("source-date-epoch", epoch) ?? null),
    compression: parseCompression(take),
    annotations,
  };
  checkTypes(options);
  return { options, rest };
}

function checkTypes(options: CommitOptions): void {
  if (options.ociTypes !== false) return;
  const { type } = options.compression;
  if (type === "estargz") {
    throw new BuildError(
      "invalid_argument",
      `exporter option "compression=${type}" conflicts with "oci-mediatypes=false"`,
    );
  }
  if (options.ociArtifact === true) {
    throw new BuildError(
      "invalid_argument",
      'exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"',
    );
  }
}

/** Reads `compression`, `compression-level` and `force-compression` (buildkit.md §5.3). */
export function parseCompression(take: (key: string) => string | undefined): CompressionOptions {
  const type = take("compression") ?? "gzip";
  const known = COMPRESSIONS.find((name) => name === type);
  if (known === undefined) throw new BuildError("invalid_argument", `unsupported compression type ${type}`);
  const level = take("compression-level");
  if (level !== undefined && !/^[+-]?\d{1,9}$/.test(level)) {
    throw new BuildError("invalid_argument", `non-integer value ${level} specified for compression-level`);
  }
  const force = take("force-compression");
  return {
    type: known,
    force: force === undefined ? false : boolAttr("force-compression", force),
    ...(level === undefined ? {} : { level: Number(level) }),
  };
}
