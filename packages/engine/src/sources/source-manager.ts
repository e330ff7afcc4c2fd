import type { Platform as PlatformMessage, SourceOp } from "@kiln/api/pb";
import { BuildError, isBuildError } from "@kiln/base";
import type { Platform } from "@kiln/oci";
import type { OpContext } from "../op-context.ts";
import type { Source, SourceInstance } from "./source.ts";
import type { SourceMetadata, SourceMetadataOptions, SourceMetadataResolver } from "./source-metadata.ts";

/** The sources of a worker, by scheme. */
export class SourceManager implements SourceMetadataResolver {
  readonly #byScheme = new Map<string, Source & Partial<SourceMetadataResolver>>();

  constructor(sources: readonly (Source & Partial<SourceMetadataResolver>)[]) {
    for (const source of sources) {
      for (const scheme of source.schemes) this.#byScheme.set(scheme, source);
    }
  }

  /** @throws BuildError `not_found` for an unknown scheme, `invalid_argument` for a malformed source. */
  resolve(op: SourceOp, platform: PlatformMessage | undefined): SourceInstance {
    return this.#find(op.identifier).resolve({
      identifier: op.identifier,
      attrs: new Map(Object.entries(op.attrs)),
      platform: platformOf(platform),
    });
  }

  /** The identifier that policies see; one that can't be read is left for the source to refuse. */
  canonical(identifier: string): string {
    try {
      return this.#find(identifier).canonical?.(identifier) ?? identifier;
    } catch (error) {
      if (isBuildError(error)) return identifier;
      throw error;
    }
  }

  async resolveMetadata(op: SourceOp, opts: SourceMetadataOptions, ctx: OpContext): Promise<SourceMetadata> {
    const source = this.#find(op.identifier);
    if (source.resolveMetadata === undefined) return { source: op };
    return await source.resolveMetadata(op, opts, ctx);
  }

  #find(identifier: string): Source & Partial<SourceMetadataResolver> {
    const at = identifier.indexOf("://");
    if (at < 0) {
      throw new BuildError("invalid_argument", `failed to parse ${identifier}: invalid`);
    }
    const scheme = identifier.slice(0, at);
    const source = this.#byScheme.get(scheme);
    if (source === undefined) throw new BuildError("not_found", `unknown scheme ${scheme}: not found`);
    return source;
  }
}

/** An op's platform in the words of OCI. */
export function platformOf(message: PlatformMessage | undefined): Platform | undefined {
  if (message === undefined) return undefined;
  return {
    os: message.OS,
    architecture: message.Architecture,
    ...(message.Variant === "" ? {} : { variant: message.Variant }),
    ...(message.OSVersion === "" ? {} : { "os.version": message.OSVersion }),
    ...(message.OSFeatures.length === 0 ? {} : { "os.features": message.OSFeatures }),
  };
}
