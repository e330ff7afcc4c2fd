import type { HttpTransportOptions } from "@kiln/registry";
import { GitSource } from "./git/git-source.ts";
import { HttpSource } from "./http/http-source.ts";
import { BlobSource } from "./image/blob-source.ts";
import { ImageSource, type ImageSourceServices, LayoutSource } from "./image/image-source.ts";

/** What the remote sources are made from. */
export interface RemoteSourceServices extends ImageSourceServices {
  readonly userAgent: string;
  /** Proxies and address rules of the http source. */
  readonly http?: HttpTransportOptions;
}

/** The sources for images, blobs, downloads and git; `local://` comes on top. */
export function remoteSources(
  services: RemoteSourceServices,
): (ImageSource | LayoutSource | BlobSource | HttpSource | GitSource)[] {
  const { http } = services;
  return [
    new ImageSource(services),
    new LayoutSource(services),
    new BlobSource(services),
    new HttpSource({ ...services, ...(http === undefined ? {} : { transport: http }) }),
    new GitSource(services),
  ];
}
