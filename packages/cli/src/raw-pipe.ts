import type { Duplex } from "node:stream";
import { finished } from "node:stream/promises";

/**
 * Connects a stream with standard input and output. The end of the input closes only that direction; the end of the
 * stream ends both.
 */
export async function pipeRaw(
  stream: Duplex,
  ends: { readonly stdin: NodeJS.ReadableStream; readonly stdout: NodeJS.WritableStream },
  signal: AbortSignal,
): Promise<void> {
  const onAbort = (): void => {
    stream.destroy(signal.reason as Error);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    ends.stdin.pipe(stream);
    stream.pipe(ends.stdout, { end: false });
    await finished(stream, { writable: false });
  } finally {
    signal.removeEventListener("abort", onAbort);
    ends.stdin.unpipe(stream);
    stream.destroy();
    if ("destroy" in ends.stdin) (ends.stdin as Duplex).destroy();
  }
}
