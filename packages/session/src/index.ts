export * from "./client/index.ts";
export type { BlobIngest, BlobIngestStatus, BlobStore, StoredBlob } from "./content/blob-store.ts";
export { ContentClient } from "./content/client.ts";
export { DirBlobStore } from "./content/dir-store.ts";
export { addContentService, storeByMetadata } from "./content/service.ts";
export { defaultSshId, maxSecretBytes, queryEscape, queryUnescape, sessionHeaders } from "./headers.ts";
export * from "./server/index.ts";
