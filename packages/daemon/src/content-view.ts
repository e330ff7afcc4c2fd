import type { BlobStore, StoredBlob } from "@kiln/session";
import type { BlobInfo, ContentStore } from "@kiln/store";

/** The daemon's blobs as containerd's content API shows them to clients: read-only. */
export function contentView(content: ContentStore): BlobStore {
  return {
    info: async (digest) => storedBlob(content.info(digest)),
    list: async function* () {
      for (const blob of content.walk()) yield storedBlob(blob);
    },
    read: (digest, { offset, sizeBytes }) => content.read(digest, { offset, length: sizeBytes }),
  };
}

function storedBlob(blob: BlobInfo): StoredBlob {
  const createdAt = new Date(blob.createdAt);
  return {
    digest: blob.digest,
    sizeBytes: blob.sizeBytes,
    createdAt,
    updatedAt: createdAt,
    labels: Object.fromEntries(blob.labels),
  };
}
