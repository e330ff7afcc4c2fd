import type { HttpTransportOptions } from "@kiln/registry";
import type { LeaseStore, RefManager } from "@kiln/store";
import { GitSource } from "./git/git-source.ts";
import { HttpSource } from "./http/http-source.ts";
import { BlobSource } from "./image/blob-source.ts";
import { DocumentLeases } from "./image/document-leases.ts";
import type { OriginServices } from "./image/image-origin.ts";
import { ImageSource, LayoutSource } from "./image/image-source.ts";

/** What the remote sources are made from. */
export interface RemoteSourceServices extends OriginServices {
  readonly refs: RefManager;
  readonly leases: LeaseStore;
  readonly userAgent: string;
  /** Proxies and address rules of the http source. */
  readonly http?: HttpTransportOptions;
}

/** The sources for images, blobs, downloads and git; `local://` comes on top. */
export function remoteSources(
  services: RemoteSourceServices,
): (ImageSource | LayoutSource | BlobSource | HttpSource | GitSource)[] {
  const { http } = services;
  const documents = new DocumentLeases(services.leases, services.refs);
  return [
    new ImageSource({ ...services, documents }),
    new LayoutSource({ ...services, documents }),
    new BlobSource(services),
    new HttpSource({ ...services, ...(http === undefined ? {} : { transport: http }) }),
    new GitSource(services),
  ];
}
