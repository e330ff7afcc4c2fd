import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type StatusResponse, StatusResponseSchema } from "@kiln/api/control";
import { BuildError } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import type { SolveStatus } from "@kiln/solver";
import type { ContentStore } from "@kiln/store";
import { statusResponses } from "../control/status-wire.ts";

/** Media type of a build's recorded progress: messages, each after its length (4 bytes, little-endian). */
export const STATUS_LOG_TYPE = "application/vnd.buildkit.status.v0";
/** A recorded message can't be longer; the sender splits logs at a megabyte. */
const MAX_MESSAGE_BYTES = 64 << 20;

/** How many steps a build had. */
export class StepCounts {
  cached = 0;
  completed = 0;
  warnings = 0;
  readonly #steps = new Map<string, { cached: boolean; completed: boolean }>();

  get total(): number {
    return this.#steps.size;
  }

  add(status: SolveStatus): void {
    this.warnings += status.warnings.length;
    for (const vertex of status.vertexes) {
      const step = this.#steps.get(vertex.digest) ?? { cached: false, completed: false };
      this.#steps.set(vertex.digest, step);
      if (vertex.cached && !step.cached) {
        step.cached = true;
        this.cached++;
      }
      if (vertex.completedMs !== undefined && !step.completed) {
        step.completed = true;
        this.completed++;
      }
    }
  }
}

/** Writes a build's progress into the content store until it ends. */
export async function recordStatus(
  content: ContentStore,
  progress: AsyncIterable<SolveStatus>,
): Promise<{ readonly blob: Descriptor; readonly counts: StepCounts }> {
  const counts = new StepCounts();
  await using writer = await content.writer();
  for await (const status of progress) {
    counts.add(status);
    for (const message of statusResponses(status)) {
      const bytes = toBinary(StatusResponseSchema, message);
      const frame = new Uint8Array(4 + bytes.length);
      new DataView(frame.buffer).setUint32(0, bytes.length, true);
      frame.set(bytes, 4);
      await writer.write(frame);
    }
  }
  return { blob: await writer.commit(), counts };
}

/** Reads it back. */
export async function* replayStatus(content: ContentStore, digest: string): AsyncGenerator<StatusResponse> {
  let rest = Buffer.alloc(0);
  for await (const chunk of content.read(digest)) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    for (;;) {
      if (rest.length < 4) break;
      const length = rest.readUInt32LE(0);
      if (length > MAX_MESSAGE_BYTES)
        throw new BuildError("data_loss", `message of ${length} bytes in ${digest}`);
      if (rest.length < 4 + length) break;
      yield fromBinary(StatusResponseSchema, rest.subarray(4, 4 + length));
      rest = rest.subarray(4 + length);
    }
  }
  if (rest.length > 0) throw new BuildError("data_loss", `recorded progress ${digest} ends within a message`);
}
