import { BuildError } from "@kiln/base";

/** Longest pause in a small body. */
const IDLE_TIMEOUT_MS = 60_000;

/** A whole small body; throws `resource_exhausted` beyond `maxBytes` without reading on. */
export async function readBody(
  body: AsyncIterable<Uint8Array> & { destroy(error?: Error): unknown },
  maxBytes: number,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const timer = setTimeout(
    () => body.destroy(new BuildError("deadline_exceeded", "timeout reading response body")),
    IDLE_TIMEOUT_MS,
  );
  try {
    for await (const chunk of body) {
      timer.refresh();
      size += chunk.length;
      if (size > maxBytes) {
        throw new BuildError("resource_exhausted", `response body exceeds ${maxBytes} bytes`);
      }
      chunks.push(chunk);
    }
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
  return Buffer.concat(chunks, size);
}
