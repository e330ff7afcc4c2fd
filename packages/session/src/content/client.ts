import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  Content,
  type Info,
  WriteAction,
  type WriteContentRequestSchema,
  type WriteContentResponse,
} from "@kiln/api/content";
import { BuildError } from "@kiln/base";
import type { CallOptions, Channel, ClientCall, MetadataInit } from "@kiln/grpc/client";
import { sessionHeaders } from "../headers.ts";
import type { BlobIngestStatus, StoredBlob } from "./blob-store.ts";

/** Bytes in one message of a write. */
const writeChunkBytes = 4 << 20;

/** A content store behind a connection: a session's (with `storeId`) or a daemon's. */
export class ContentClient {
  readonly #channel: Channel;
  readonly #opts: CallOptions;

  constructor(
    channel: Channel,
    opts: { readonly storeId?: string; readonly signal?: AbortSignal; readonly metadata?: MetadataInit } = {},
  ) {
    this.#channel = channel;
    const metadata =
      opts.metadata ?? (opts.storeId === undefined ? undefined : { [sessionHeaders.storeId]: opts.storeId });
    this.#opts = {
      ...(opts.signal === undefined ? {} : { signal: opts.signal }),
      ...(metadata === undefined ? {} : { metadata }),
    };
  }

  /** Throws `not_found`. */
  async info(digest: string, signal?: AbortSignal): Promise<StoredBlob> {
    const { info } = await this.#channel.unary(Content.method.info, { digest }, this.#with(signal));
    if (!info) throw new BuildError("internal", "the content store answered without info");
    return blobOf(info);
  }

  /** Sets labels; those with an empty value are removed. */
  async setLabels(
    digest: string,
    labels: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<StoredBlob> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const request = { info: { digest, labels: { ...labels } }, updateMask: { paths } };
    const { info } = await this.#channel.unary(Content.method.update, request, this.#with(signal));
    if (!info) throw new BuildError("internal", "the content store answered without info");
    return blobOf(info);
  }

  async *list(
    filters: readonly string[] = [],
    signal?: AbortSignal,
  ): AsyncGenerator<StoredBlob, void, undefined> {
    for await (const batch of this.#channel.serverStream(
      Content.method.list,
      { filters: [...filters] },
      this.#with(signal),
    )) {
      yield* batch.info.map(blobOf);
    }
  }

  async delete(digest: string, signal?: AbortSignal): Promise<void> {
    await this.#channel.unary(Content.method.delete, { digest }, this.#with(signal));
  }

  /** Bytes of a blob, all from `offset` unless `sizeBytes` is given. Throws `data_loss` for a gap. */
  async *read(
    digest: string,
    range: { readonly offset?: number; readonly sizeBytes?: number } = {},
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    if (range.sizeBytes === 0) return;
    const request = { digest, offset: BigInt(range.offset ?? 0), size: BigInt(range.sizeBytes ?? 0) };
    let at: bigint | undefined;
    for await (const part of this.#channel.serverStream(Content.method.read, request, this.#with(signal))) {
      if (at !== undefined && part.offset !== at)
        throw new BuildError("data_loss", `content ${digest} came with a gap at ${at}`);
      at = part.offset + BigInt(part.data.length);
      yield part.data;
    }
  }

  async statuses(signal?: AbortSignal): Promise<readonly BlobIngestStatus[]> {
    const { statuses } = await this.#channel.unary(Content.method.listStatuses, {}, this.#with(signal));
    return statuses.map((s) => ({
      ref: s.ref,
      offset: Number(s.offset),
      startedAt: s.startedAt ? timestampDate(s.startedAt) : new Date(0),
      updatedAt: s.updatedAt ? timestampDate(s.updatedAt) : new Date(0),
    }));
  }

  async abort(ref: string, signal?: AbortSignal): Promise<void> {
    await this.#channel.unary(Content.method.abort, { ref }, this.#with(signal));
  }

  /**
   * Writes a blob under a ref. Throws `already_exists` when the store has the expected digest, which is no
   * failure for most.
   */
  async write(
    ref: string,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    expected: {
      readonly digest?: string;
      readonly sizeBytes?: number;
      readonly labels?: Record<string, string>;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
    await using call = await this.#channel.call(Content.method.write, this.#with(expected.signal));
    const common = { expected: expected.digest ?? "", total: BigInt(expected.sizeBytes ?? 0) };
    await ask(call, { action: WriteAction.STAT, ref, ...common });
    let offset = 0n;
    for await (const chunk of source) {
      for (let at = 0; at < chunk.length; at += writeChunkBytes) {
        const data = chunk.subarray(at, at + writeChunkBytes);
        const answer = await ask(call, { action: WriteAction.WRITE, offset, data });
        if (answer.offset - offset !== BigInt(data.length)) throw new BuildError("data_loss", "short write");
        offset = answer.offset;
      }
    }
    const done = await ask(call, {
      action: WriteAction.COMMIT,
      offset,
      ...common,
      labels: expected.labels ?? {},
    });
    call.closeSend();
    if (expected.digest !== undefined && done.digest !== expected.digest) {
      throw new BuildError("data_loss", `unexpected digest: ${done.digest} != ${expected.digest}`);
    }
    return { digest: done.digest, sizeBytes: Number(offset) };
  }

  #with(signal: AbortSignal | undefined): CallOptions {
    if (signal === undefined) return this.#opts;
    return {
      ...this.#opts,
      signal: this.#opts.signal ? AbortSignal.any([this.#opts.signal, signal]) : signal,
    };
  }
}

type WriteCall = ClientCall<WriteContentResponse, MessageInitShape<typeof WriteContentRequestSchema>>;

async function ask(
  call: WriteCall,
  request: MessageInitShape<typeof WriteContentRequestSchema>,
): Promise<WriteContentResponse> {
  call.send(request).catch(() => undefined);
  const answer = await call.receive();
  if (answer === undefined) throw new BuildError("internal", "the content store left a write unfinished");
  return answer;
}

function blobOf(info: Info): StoredBlob {
  return {
    digest: info.digest,
    sizeBytes: Number(info.size),
    createdAt: info.createdAt ? timestampDate(info.createdAt) : new Date(0),
    updatedAt: info.updatedAt ? timestampDate(info.updatedAt) : new Date(0),
    labels: { ...info.labels },
  };
}
