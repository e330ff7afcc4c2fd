import { BuildError, wrapError } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import type { OpContext } from "../../op-context.ts";
import type { Exporter, ExporterInstance, ExportOptions, ExportOutcome, ExportSource } from "../exporter.ts";
import { boolAttr } from "../parse-attrs.ts";
import type { CommitOptions } from "./commit-options.ts";
import { parseCommitOptions } from "./commit-options.ts";
import { finalOptions, mergedSource, responseOf } from "./image-response.ts";
import type { ImageWriter, WrittenImage } from "./image-writer.ts";

/** Pushes a finished image under a name. */
export interface ImagePusher {
  push(
    image: WrittenImage,
    target: { readonly name: string; readonly byDigest: boolean; readonly insecure: boolean },
    ctx: OpContext,
  ): Promise<void>;
}

/** What the image exporter works with. */
export interface ImageExporterHost {
  readonly writer: ImageWriter;
  readonly pusher: ImagePusher;
}

interface ImageAttrs {
  readonly push: boolean;
  readonly pushByDigest: boolean;
  readonly insecure: boolean;
  readonly danglingPrefix: string;
  readonly danglingEmptyOnly: boolean;
  /** Unknown attributes: they become metadata of the result. */
  readonly rest: ReadonlyMap<string, string>;
}

/**
 * Makes an image and pushes it (`type=image`). This worker keeps no images by name, so `unpack` and `store`
 * have nothing to do here, as on BuildKit's OCI worker.
 */
export function createImageExporter(host: ImageExporterHost): Exporter {
  return {
    type: "image",
    resolve: (id, attrs) => {
      const { options, rest } = parseCommitOptions(attrs);
      const own = parseImageAttrs(rest);
      const instance: ExporterInstance = {
        type: "image",
        id,
        name: "exporting to image",
        attrs,
        export: (source, opts, ctx) => exportImage(host, { source, options, own }, opts, ctx),
      };
      return instance;
    },
  };
}

function parseImageAttrs(attrs: Map<string, string>): ImageAttrs {
  const rest = new Map(attrs);
  const take = (key: string): string | undefined => {
    const value = rest.get(key);
    rest.delete(key);
    return value;
  };
  const flag = (key: string): boolean => {
    const value = take(key);
    return value === undefined ? false : boolAttr(key, value);
  };
  // both checked, neither has anything to do without an image store
  flag("unpack");
  flag("store");
  flag("unsafe-internal-store-allow-incomplete");
  flag("name-canonical");
  return {
    push: flag("push"),
    pushByDigest: flag("push-by-digest"),
    insecure: flag("registry.insecure"),
    danglingPrefix: take("dangling-name-prefix") ?? "",
    danglingEmptyOnly: flag("danging-name-empty-only"),
    rest,
  };
}

async function exportImage(
  host: ImageExporterHost,
  at: { readonly source: ExportSource; readonly options: CommitOptions; readonly own: ImageAttrs },
  opts: ExportOptions,
  ctx: OpContext,
): Promise<ExportOutcome> {
  const source = mergedSource(at.source, at.own.rest);
  const options = finalOptions(at.options, source, opts, { attestationInline: true, ociTypes: undefined });
  const image = await host.writer.commit(source, options, opts, ctx);
  const names = imageNames(options.name, image.descriptor, at.own);
  const response = responseOf(image, names.join(","));
  if (!at.own.push || names.length === 0) return { response, descriptor: image.descriptor };
  const { pushByDigest: byDigest, insecure } = at.own;
  return {
    response,
    descriptor: image.descriptor,
    finalize: async (pushCtx) => {
      for (const name of names) {
        try {
          await host.pusher.push(image, { name, byDigest, insecure }, pushCtx);
        } catch (error) {
          throw wrapError(error, `failed to push ${name}`);
        }
      }
    },
  };
}

function imageNames(name: string, descriptor: Descriptor, own: ImageAttrs): string[] {
  const names = name === "" ? [] : name.split(",");
  if (own.danglingPrefix !== "" && (!own.danglingEmptyOnly || names.length === 0)) {
    names.push(`${own.danglingPrefix}@${descriptor.digest}`);
  }
  if (names.some((one) => one === ""))
    throw new BuildError("invalid_argument", `invalid empty image name in ${name}`);
  return names;
}
