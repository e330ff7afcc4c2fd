import { posix } from "node:path";
import { Upload } from "@kiln/api/upload";
import { BuildError } from "@kiln/base";
import { newId } from "@kiln/formats";
import type { Router } from "@kiln/grpc/server";
import { maxChunkBytes, sessionHeaders } from "../headers.ts";
import type { Attachable } from "./attachable.ts";

/** Gives the daemon streams (a context from standard input), each once. */
export class UploadProvider implements Attachable {
  readonly #streams = new Map<string, AsyncIterable<Uint8Array>>();

  /** The URL under which the daemon reads the stream. */
  add(stream: AsyncIterable<Uint8Array>): string {
    const id = newId();
    this.#streams.set(id, stream);
    return `http://buildkit-session/${id}`;
  }

  addTo(router: Router): void {
    router.add(Upload, {
      pull: async (call, ctx) => {
        const id = posix.basename(ctx.metadata.get(sessionHeaders.urlPath) ?? "");
        const stream = this.#streams.get(id);
        if (!stream) throw new BuildError("unknown", `no http response from session for ${id}`);
        this.#streams.delete(id);
        for await (const chunk of stream) {
          for (let at = 0; at < chunk.length; at += maxChunkBytes) {
            await call.send({ data: chunk.subarray(at, at + maxChunkBytes) });
          }
        }
      },
    });
  }
}
