import { FileSend } from "@kiln/api/filesync";
import { bytesFieldCodec, type ClientCall, pathOf } from "@kiln/grpc/client";
import { packetCodec, type SendOptions, sendTree, type TreeSource } from "../fsutil/index.ts";
import { maxChunkBytes, sessionHeaders } from "../headers.ts";
import { callOn, requireMethod, type SessionCaller } from "./caller.ts";
import { packetStream } from "./packet-call.ts";

/** Which export of the client's request something belongs to. */
export interface ExportTarget {
  /** Index of the exporter in the client's list. */
  readonly exporterId: number;
  readonly signal?: AbortSignal | undefined;
}

const path = pathOf(FileSend.method.diffCopy);

/** Sends a tree to the client's local exporter. `multiPlatform` says that the client may run in delete mode. */
export async function sendDirectory(
  caller: SessionCaller,
  source: TreeSource,
  target: ExportTarget & SendOptions & { readonly multiPlatform?: boolean },
): Promise<void> {
  requireMethod(caller, path);
  const metadata: [string, string][] = [[sessionHeaders.exporterId, String(target.exporterId)]];
  if (target.multiPlatform) metadata.push([sessionHeaders.multiPlatform, "1"]);
  await using call = await caller.channel.rawCall(path, callOn(caller, { signal: target.signal, metadata }));
  await sendTree(packetStream(call, packetCodec), source, target);
  call.closeSend();
  while ((await call.receive()) !== undefined);
}

/** A file that is written at the client's. Dispose of it to give up what was not closed. */
export interface RemoteFileWriter extends AsyncDisposable {
  /** Resolves when more may be written. */
  write(data: Uint8Array): Promise<void>;
  /** Ends the file; resolves when the client has it. */
  close(): Promise<void>;
}

/**
 * Opens the client's output file for a tar, OCI or docker export; `metadata` are the exporter's answers, which
 * the client sees first. Throws `already_exists` when the client doesn't want the file.
 */
export async function openFileWriter(
  caller: SessionCaller,
  target: ExportTarget & { readonly metadata?: Readonly<Record<string, string>> },
): Promise<RemoteFileWriter> {
  requireMethod(caller, path);
  const metadata: [string, string][] = Object.entries(target.metadata ?? {}).map(([key, value]) => [
    sessionHeaders.exporterMetaPrefix + key,
    value,
  ]);
  metadata.push([sessionHeaders.exporterId, String(target.exporterId)]);
  const call = await caller.channel.rawCall(path, callOn(caller, { signal: target.signal, metadata }));
  return new FileWriter(call);
}

class FileWriter implements RemoteFileWriter {
  readonly #call: ClientCall<Uint8Array, Uint8Array>;

  constructor(call: ClientCall<Uint8Array, Uint8Array>) {
    this.#call = call;
  }

  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; at += maxChunkBytes) {
      await this.#call.send(bytesFieldCodec.encode(data.subarray(at, at + maxChunkBytes)));
    }
  }

  async close(): Promise<void> {
    this.#call.closeSend();
    while ((await this.#call.receive()) !== undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#call.cancel();
    return Promise.resolve();
  }
}
