import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  Content,
  type InfoSchema,
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponseSchema,
} from "@kiln/api/content";
import { BuildError, isBuildError } from "@kiln/base";
import type { CallContext, Router, ServerCall } from "@kiln/grpc/server";
import { sessionHeaders } from "../headers.ts";
import type { BlobIngest, BlobStore, StoredBlob } from "./blob-store.ts";

/** Blobs of one message while reading. */
const readChunkBytes = 1 << 20;
/** Blobs in one message of a list. */
const listBatch = 100;

/** Serves containerd's content API; `choose` says which store a call means. */
export function addContentService(router: Router, choose: (ctx: CallContext) => BlobStore): void {
  router.add(Content, {
    info: async (request, ctx) => ({ info: infoOf(await choose(ctx).info(valid(request.digest))) }),
    update: async (request, ctx) => {
      const store = choose(ctx);
      if (!store.setLabels) throw readOnly();
      const digest = valid(request.info?.digest ?? "");
      const before = (await store.info(digest)).labels;
      const labels = mergeLabels(before, request.info?.labels ?? {}, request.updateMask?.paths ?? []);
      return { info: infoOf(await store.setLabels(digest, labels)) };
    },
    async *list(request, ctx) {
      if (request.filters.some((f) => f !== ""))
        throw new BuildError("unimplemented", "filters of content lists");
      let batch: MessageInitShape<typeof InfoSchema>[] = [];
      for await (const blob of choose(ctx).list()) {
        batch.push(infoOf(blob));
        if (batch.length < listBatch) continue;
        yield { info: batch };
        batch = [];
      }
      if (batch.length > 0) yield { info: batch };
    },
    delete: async (request, ctx) => {
      const store = choose(ctx);
      if (!store.delete) throw readOnly();
      await store.delete(valid(request.digest));
      return {};
    },
    read: (request, ctx) => readBlob(choose(ctx), request),
    status: async (request, ctx) => {
      const all = (await choose(ctx).ingests?.()) ?? [];
      const found = all.find((s) => s.ref === request.ref);
      if (!found)
        throw new BuildError(
          "not_found",
          `could not get status for ref ${JSON.stringify(request.ref)}: not found`,
        );
      return { status: statusOf(found) };
    },
    listStatuses: async (_request, ctx) => ({
      statuses: ((await choose(ctx).ingests?.()) ?? []).map(statusOf),
    }),
    write: (call, ctx) => writeBlob(choose(ctx), call),
    abort: async (request, ctx) => {
      const store = choose(ctx);
      if (!store.abort) throw readOnly();
      await store.abort(request.ref);
      return {};
    },
  });
}

/** Chooses by the store id in the metadata, as clients of BuildKit's sessions ask. */
export function storeByMetadata(stores: ReadonlyMap<string, BlobStore>): (ctx: CallContext) => BlobStore {
  return (ctx) => {
    const id = ctx.metadata.get(sessionHeaders.storeId);
    if (id === undefined) {
      throw new BuildError(
        "invalid_argument",
        `request lacks metadata "${sessionHeaders.storeId}": invalid argument`,
      );
    }
    const store = stores.get(id);
    if (!store) throw new BuildError("not_found", `unknown store ${id}: not found`);
    return store;
  };
}

function readOnly(): BuildError {
  return new BuildError("failed_precondition", "read-only content store");
}

function valid(digest: string): string {
  if (!/^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/.test(digest)) {
    throw new BuildError("invalid_argument", `${JSON.stringify(digest)} failed validation`);
  }
  return digest;
}

function infoOf(blob: StoredBlob): MessageInitShape<typeof InfoSchema> {
  return {
    digest: blob.digest,
    size: BigInt(blob.sizeBytes),
    createdAt: timestampFromDate(blob.createdAt),
    updatedAt: timestampFromDate(blob.updatedAt),
    labels: { ...blob.labels },
  };
}

function statusOf(status: { ref: string; offset: number; startedAt: Date; updatedAt: Date }) {
  return {
    ref: status.ref,
    offset: BigInt(status.offset),
    startedAt: timestampFromDate(status.startedAt),
    updatedAt: timestampFromDate(status.updatedAt),
  };
}

/** Field paths are `labels` or `labels.<key>`; none means all labels. */
function mergeLabels(
  before: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string>>,
  paths: readonly string[],
): Record<string, string> {
  if (paths.length === 0 || paths.includes("labels")) return { ...wanted };
  const out = new Map(Object.entries(before));
  for (const path of paths) {
    if (!path.startsWith("labels.")) throw new BuildError("invalid_argument", `cannot update ${path}`);
    const key = path.slice("labels.".length);
    const value = Object.hasOwn(wanted, key) ? wanted[key] : undefined;
    if (value === undefined || value === "") out.delete(key);
    else out.set(key, value);
  }
  return Object.fromEntries(out);
}

async function* readBlob(
  store: BlobStore,
  request: { readonly digest: string; readonly offset: bigint; readonly size: bigint },
): AsyncGenerator<{ offset: bigint; data: Uint8Array }, void, undefined> {
  const { sizeBytes } = await store.info(valid(request.digest));
  const start = request.offset < 0n ? 0 : Number(request.offset);
  if (start > sizeBytes) throw new BuildError("out_of_range", `read past object length ${sizeBytes} bytes`);
  const asked = Number(request.size);
  const length = asked <= 0 || start + asked > sizeBytes ? sizeBytes - start : asked;
  // Offsets count from the start of the answer, as containerd's do.
  let offset = 0;
  for await (const chunk of store.read(request.digest, { offset: start, sizeBytes: length })) {
    for (let at = 0; at < chunk.length; at += readChunkBytes) {
      const data = chunk.subarray(at, at + readChunkBytes);
      yield { offset: BigInt(offset), data };
      offset += data.length;
    }
  }
}

type WriteAnswer = MessageInitShape<typeof WriteContentResponseSchema>;

async function writeBlob(
  store: BlobStore,
  call: ServerCall<WriteContentRequest, WriteAnswer>,
): Promise<void> {
  const first = await call.receive();
  if (first === undefined || first.ref === "") {
    throw new BuildError("invalid_argument", "first message must have a reference");
  }
  if (!store.ingest) throw readOnly();
  const ingest = await store.ingest(first.ref, expectedOf(first));
  try {
    for (let request: WriteContentRequest | undefined = first; request; request = await call.receive()) {
      await call.send(await handleWrite(store, ingest, request));
      if (request.action === WriteAction.COMMIT) return;
    }
  } finally {
    await ingest.close();
  }
}

function expectedOf(request: WriteContentRequest): { sizeBytes?: number; digest?: string } {
  return {
    ...(request.total > 0n ? { sizeBytes: Number(request.total) } : {}),
    ...(request.expected === "" ? {} : { digest: valid(request.expected) }),
  };
}

async function handleWrite(
  store: BlobStore,
  ingest: BlobIngest,
  request: WriteContentRequest,
): Promise<WriteAnswer> {
  const base = { action: request.action, startedAt: timestampFromDate(ingest.startedAt) };
  if (request.action === WriteAction.STAT) {
    return {
      ...base,
      updatedAt: timestampFromDate(ingest.updatedAt),
      offset: BigInt(ingest.offset),
      total: request.total,
      digest: ingest.digest(),
    };
  }
  if (request.offset > 0n && request.offset !== BigInt(ingest.offset)) {
    throw new BuildError(
      "out_of_range",
      `write @${request.offset} must occur at current offset ${ingest.offset}`,
    );
  }
  if (request.offset === 0n && ingest.offset > 0) await ingest.truncate(0);
  if (request.data.length > 0) await ingest.write(request.data);
  const digest = ingest.digest();
  if (request.action === WriteAction.COMMIT) {
    try {
      await ingest.commit({ ...expectedOf(request), labels: { ...request.labels } });
    } catch (error) {
      if (isBuildError(error, "already_exists")) await store.abort?.(ingest.ref);
      throw error;
    }
  }
  return {
    ...base,
    updatedAt: timestampFromDate(new Date()),
    offset: BigInt(ingest.offset),
    total: request.total,
    digest,
  };
}
