/** What a build record is tied to: results and attestations. */
import type { Descriptor } from "@kiln/api/control";
import type { BuildkitClient } from "@kiln/client";
import { formatPlatformAll, isIndexType, type Platform, parseIndex, parsePlatform } from "@kiln/oci";
import type { FoundRecord } from "./query.ts";

/** One blob of a record. */
export interface Attachment {
  readonly digest: string;
  readonly size: bigint;
  /** The predicate's type of an attestation, else the media type. */
  readonly type: string;
  /** Empty where none is known. */
  readonly platform: string;
}

interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: bigint;
  readonly annotations: Readonly<Record<string, string>>;
}

/** All attachments, ordered by platform and type. Blobs that the daemon no longer has are left out. */
export async function listAttachments({ record, client }: FoundRecord): Promise<Attachment[]> {
  const out: Attachment[] = [];
  const results = [
    ...(record.Result ? [{ platform: "", info: record.Result }] : []),
    ...Object.entries(record.Results).map(([key, info]) => ({
      platform: formatPlatformAll(parsePlatform(key)),
      info,
    })),
  ];
  for (const { platform, info } of results) {
    for (const descriptor of info.Attestations) out.push(attachment(blobOf(descriptor), platform));
    for (const descriptor of Object.values(info.Results)) {
      out.push(...(await walk(client, blobOf(descriptor), platform)));
    }
  }
  return out.sort((a, b) => compare(a.platform, b.platform) || compare(a.type, b.type));
}

async function walk(client: BuildkitClient, blob: Blob, platform: string): Promise<Attachment[]> {
  try {
    await client.contentInfo(blob.digest);
  } catch {
    return [];
  }
  const isAttestation = blob.annotations["vnd.docker.reference.type"] === "attestation-manifest";
  const out = isAttestation ? [] : [attachment(blob, platform)];
  if (!isIndexType(blob.mediaType)) return out;
  const index = parseIndex(await client.readBlob(blob.digest), blob.mediaType);
  for (const manifest of index.manifests) {
    const child: Blob = {
      mediaType: manifest.mediaType,
      digest: manifest.digest,
      size: BigInt(manifest.size),
      annotations: manifest.annotations ?? {},
    };
    out.push(...(await walk(client, child, platformText(manifest.platform) ?? platform)));
  }
  return out;
}

function platformText(platform: Platform | undefined): string | undefined {
  return platform === undefined ? undefined : formatPlatformAll(platform);
}

function attachment(blob: Blob, platform: string): Attachment {
  const type = blob.annotations["in-toto.io/predicate-type"] ?? blob.mediaType;
  return { digest: blob.digest, size: blob.size, type, platform };
}

function blobOf({ mediaType, digest, size, annotations }: Descriptor): Blob {
  return { mediaType, digest, size, annotations };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
