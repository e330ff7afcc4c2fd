import { create } from "@bufbuild/protobuf";
import { type BuildHistoryRecord, DescriptorSchema } from "@kiln/api/control";
import type { ContentStore } from "@kiln/store";
import type { Logger } from "../log.ts";
import { spanStubs, TRACE_TYPE } from "../tracing/span-stubs.ts";
import type { RecordedBuild } from "../tracing/tracer.ts";

/** Clients send their last spans after the build; their trace is saved then, or when one asks for it. */
const DELAY_MS = 3_000;

/** What {@link RecordedTraces} works with. */
export interface TraceRecords {
  readonly content: ContentStore;
  /** Keeps a blob for a record. */
  readonly hold: (ref: string, digest: string) => void;
  /** Changes a record and tells of it; false when it is gone. */
  readonly change: (ref: string, change: (record: BuildHistoryRecord) => void) => boolean;
  readonly log: Logger;
}

/** Puts the traces of finished builds into their records. */
export class RecordedTraces {
  readonly #records: TraceRecords;
  readonly #waiting = new Map<string, () => Promise<void>>();

  constructor(records: TraceRecords) {
    this.#records = records;
  }

  saveSoon(ref: string, build: RecordedBuild): void {
    let saved: Promise<void> | undefined;
    const save = (): Promise<void> => {
      clearTimeout(timer);
      saved ??= this.#save(ref, build).finally(() => {
        if (this.#waiting.get(ref) === save) this.#waiting.delete(ref);
      });
      return saved;
    };
    const timer = setTimeout(() => void save(), DELAY_MS);
    timer.unref();
    this.#waiting.set(ref, save);
  }

  /** Saves the trace of a build now; settles when its record has it, whether or not there was one to save. */
  async finalize(ref: string): Promise<void> {
    await this.#waiting.get(ref)?.();
  }

  async finalizeAll(): Promise<void> {
    await Promise.all([...this.#waiting.values()].map((save) => save()));
  }

  async #save(ref: string, build: RecordedBuild): Promise<void> {
    try {
      const spans = build.stop();
      if (spans.length === 0) return;
      const blob = await this.#records.content.write(new TextEncoder().encode(spanStubs(spans)));
      const trace = create(DescriptorSchema, {
        mediaType: TRACE_TYPE,
        digest: blob.digest,
        size: BigInt(blob.size),
      });
      const known = this.#records.change(ref, (record) => {
        record.trace = trace;
      });
      if (known) this.#records.hold(ref, blob.digest);
    } catch (error) {
      this.#records.log.error(`failed to save trace for ${ref}`, error);
    }
  }
}
