import { FileSync } from "@kiln/api/filesync";
import { BuildError } from "@kiln/base";
import { pathOf } from "@kiln/grpc/client";
import { type PacketStream, packetCodec, type ReceiveOptions, receiveTree } from "../fsutil/index.ts";
import { listLines, sessionHeaders } from "../headers.ts";
import { callOn, type SessionCaller } from "./caller.ts";
import { packetStream } from "./packet-call.ts";

/** What to fetch of a client's directory. */
export interface FileSyncRequest extends ReceiveOptions {
  /** The name under which the client shares it. */
  readonly name: string;
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
  readonly followPaths?: readonly string[] | undefined;
}

/**
 * Brings a client's directory into `dest` (which may hold an earlier state of it). Throws `no local sources
 * enabled` when the client shares none, `not_found` for a name that it doesn't share.
 */
export async function syncDirectory(
  caller: SessionCaller,
  dest: string,
  request: FileSyncRequest,
): Promise<void> {
  const path = pathOf(FileSync.method.diffCopy);
  if (!caller.supports(path)) throw new BuildError("failed_precondition", "no local sources enabled");
  const metadata: [string, string][] = [
    ...listLines(sessionHeaders.includePatterns, request.include ?? []),
    ...listLines(sessionHeaders.excludePatterns, request.exclude ?? []),
    ...listLines(sessionHeaders.followPaths, request.followPaths ?? []),
    ...listLines(sessionHeaders.dirName, [request.name]),
  ];
  await using call = await caller.channel.rawCall(path, callOn(caller, { signal: request.signal, metadata }));
  const stream: PacketStream = packetStream(call, packetCodec);
  await receiveTree(stream, dest, request);
  call.closeSend();
  // The status of the call, after the last packet.
  while ((await call.receive()) !== undefined);
}
