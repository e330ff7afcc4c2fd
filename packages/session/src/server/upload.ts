import { Upload } from "@kiln/api/upload";
import { sessionHeaders } from "../headers.ts";
import { callOn, type SessionCaller } from "./caller.ts";

/** Reads what a client has uploaded under a `http://buildkit-session/<id>` URL; each can be read once. */
export async function* pullUpload(
  caller: SessionCaller,
  url: { readonly host: string; readonly path: string },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const metadata = { [sessionHeaders.urlPath]: url.path, [sessionHeaders.urlHost]: url.host };
  await using call = await caller.channel.call(Upload.method.pull, callOn(caller, { signal, metadata }));
  for await (const message of call) yield message.data;
}
