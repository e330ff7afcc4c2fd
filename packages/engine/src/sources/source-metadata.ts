import type { SourceOp } from "@kiln/api/pb";
import type { Platform } from "@kiln/oci";
import type { OpContext } from "../op-context.ts";

/** What a client wants to know of a source without fetching it (`ResolveSourceMeta`). */
export interface SourceMetadataOptions {
  readonly platform: Platform | undefined;
  /** Name of the vertex under which it is shown; made from the identifier when "". */
  readonly logName: string;
  /** `default`, `pull` or `local`. */
  readonly resolveMode: string;
  readonly image?: {
    readonly noConfig: boolean;
    readonly attestationChain: boolean;
    readonly resolveAttestations: readonly string[];
  };
  readonly git?: { readonly returnObject: boolean };
  readonly http?: {
    readonly checksum?: { readonly algorithm: "sha256" | "sha384" | "sha512"; readonly suffix: Uint8Array };
  };
}

/** A blob of an attestation chain. */
export interface ChainBlob {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations: ReadonlyMap<string, string>;
  readonly data: Uint8Array;
}

/** What a source was found to be. The part of its kind is set. */
export interface SourceMetadata {
  readonly source: SourceOp;
  readonly image?: {
    readonly digest: string;
    readonly config: Uint8Array;
    readonly attestationChain?: {
      readonly root: string;
      readonly imageManifest: string;
      readonly attestationManifest: string;
      readonly signatureManifests: readonly string[];
      readonly blobs: ReadonlyMap<string, ChainBlob>;
    };
  };
  readonly git?: {
    readonly checksum: string;
    readonly ref: string;
    readonly commitChecksum: string;
    readonly commitObject: Uint8Array;
    readonly tagObject: Uint8Array;
  };
  readonly http?: {
    readonly checksum: string;
    readonly filename: string;
    /** Milliseconds since the epoch. */
    readonly lastModified: number | undefined;
    readonly checksumResponse?: { readonly digest: string; readonly suffix: Uint8Array };
  };
}

/** Answers for sources that can tell about themselves. */
export interface SourceMetadataResolver {
  resolveMetadata(source: SourceOp, opts: SourceMetadataOptions, ctx: OpContext): Promise<SourceMetadata>;
}
