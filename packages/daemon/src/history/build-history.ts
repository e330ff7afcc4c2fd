import { create } from "@bufbuild/protobuf";
import {
  type BuildHistoryEvent,
  BuildHistoryEventSchema,
  BuildHistoryEventType,
  type BuildHistoryRecord,
  BuildHistoryRecordSchema,
  type BuildHistoryRequest,
  type StatusResponse,
  type UpdateBuildHistoryRequest,
} from "@kiln/api/control";
import { BuildError, errorMessage } from "@kiln/base";
import { type BuildEnd, JOB_TRACE_PARENT, type ObservedBuild } from "@kiln/engine";
import type { ContentStore, LeaseStore, Store } from "@kiln/store";
import type { Logger } from "../log.ts";
import { traceParent } from "../tracing/recorded-span.ts";
import type { RecordedBuild, Tracer } from "../tracing/tracer.ts";
import { BuildRecorder, type DescribeProvenance } from "./build-recorder.ts";
import { EventFeed } from "./event-feed.ts";
import { blobsOf } from "./held-blobs.ts";
import type { History } from "./history.ts";
import { createdMs, historyFilter } from "./history-filter.ts";
import { RecordTable } from "./record-table.ts";
import { RecordedTraces } from "./recorded-traces.ts";
import { replayStatus } from "./status-log.ts";

/** How often old records are looked for. */
const GC_INTERVAL_MS = 120_000;
const LEASE_PREFIX = "history/ref_";

/** Parts and limits of a history. */
export interface BuildHistoryOptions {
  readonly config: { readonly maxAgeMs: number; readonly maxEntries: number };
  readonly store: Store;
  readonly log: Logger;
  /** Provenance of a finished build's trees, by key (`""` for the only one). */
  readonly describeProvenance: DescribeProvenance;
  readonly tracer: Tracer;
  /** Told of each build that has been recorded. */
  readonly onComplete?: (record: BuildHistoryRecord) => void;
}

/** The record of builds in the daemon's database and content store (buildkit.md §10.1). */
export class BuildHistory implements History, Disposable {
  readonly #opts: BuildHistoryOptions;
  readonly #content: ContentStore;
  readonly #leases: LeaseStore;
  readonly #table: RecordTable;
  readonly #active = new Map<string, { readonly recorder: BuildRecorder; readonly traced: RecordedBuild }>();
  readonly #traces: RecordedTraces;
  readonly #feed = new EventFeed();
  /** Listeners by the ref that they asked for. */
  readonly #listening = new Map<string, number>();
  /** Records that go when their last listener has left. */
  readonly #deleted = new Set<string>();
  readonly #timer: NodeJS.Timeout;

  constructor(opts: BuildHistoryOptions) {
    this.#opts = opts;
    this.#content = opts.store.content;
    this.#leases = opts.store.leases;
    this.#table = new RecordTable(opts.store.db);
    this.#traces = new RecordedTraces({
      content: this.#content,
      hold: (ref, digest) => this.#hold(ref, digest),
      change: (ref, change) => this.#change(ref, change),
      log: opts.log,
    });
    this.#clearOrphans();
    this.#timer = setInterval(() => {
      try {
        this.#collect();
      } catch (error) {
        this.#opts.log.error("removing old records failed", error);
      }
    }, GC_INTERVAL_MS);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#feed.close();
  }

  /** Saves what isn't yet and ends what listens, for the daemon to stop. */
  async stop(): Promise<void> {
    await this.#traces.finalizeAll();
    this.#feed.close();
  }

  /** References of the builds that run. */
  running(): readonly string[] {
    return [...this.#active.keys()];
  }

  get #enabled(): boolean {
    return this.#opts.config.maxEntries !== 0;
  }

  started(build: ObservedBuild): void {
    if (!this.#enabled) return;
    const traced = this.#opts.tracer.begin(build.request.traceParent);
    build.job.setValue(JOB_TRACE_PARENT, traceParent(traced.trace.context));
    const recorder = new BuildRecorder(build, this.#content, (status) => traced.trace.observe(status));
    this.#active.set(build.request.ref, { recorder, traced });
    this.#send(BuildHistoryEventType.STARTED, recorder.record);
  }

  async completed(build: ObservedBuild, end: BuildEnd): Promise<void> {
    const { ref } = build.request;
    const active = this.#active.get(ref);
    if (active === undefined) {
      build.job.closeProgress();
      return;
    }
    const { recorder, traced } = active;
    try {
      const record = await recorder.finish(end, this.#opts.describeProvenance, (digest) =>
        this.#hold(ref, digest),
      );
      for (const digest of await blobsOf(this.#content, record)) this.#hold(ref, digest);
      this.#table.put(record);
      this.#active.delete(ref);
      this.#send(BuildHistoryEventType.COMPLETE, record);
      this.#opts.onComplete?.(record);
      traced.trace.end(end.error);
      this.#traces.saveSoon(ref, traced);
    } catch (error) {
      traced.stop();
      this.#leases.delete(LEASE_PREFIX + ref);
      this.#opts.log.error(`recording build ${ref} failed`, error);
      throw new BuildError("internal", `failed to record build ${ref}: ${errorMessage(error)}`, {
        cause: error,
      });
    } finally {
      this.#active.delete(ref);
    }
  }

  async *listen(request: BuildHistoryRequest, signal: AbortSignal): AsyncGenerator<BuildHistoryEvent> {
    const { Ref: ref } = request;
    if (ref !== "" && this.#deleted.has(ref)) {
      throw new BuildError("unknown", `ref ${ref} is deleted: file does not exist`);
    }
    if (request.Limit < 0) throw new BuildError("unknown", `invalid limit ${request.Limit}`);
    const matches = historyFilter(request.Filter, Date.now());
    using _listening = this.#listen(ref);
    using live = this.#feed.subscribe();
    for (const event of this.#stored(request, matches)) yield event;
    if (request.EarlyExit) return;
    for await (const event of live.events(signal)) {
      if (ref === "" || event.record?.Ref === ref) yield event;
    }
  }

  #stored(
    request: BuildHistoryRequest,
    matches: (record: BuildHistoryRecord) => boolean,
  ): BuildHistoryEvent[] {
    const wanted = (record: BuildHistoryRecord): boolean =>
      (request.Ref === "" || record.Ref === request.Ref) && !this.#deleted.has(record.Ref);
    const active = [...this.#active.values()]
      .map(({ recorder }) => recorder.record)
      .filter(wanted)
      .map((record) => eventOf(BuildHistoryEventType.STARTED, record));
    if (request.ActiveOnly) return active;
    const found = request.Ref === "" ? this.#table.all() : [this.#table.get(request.Ref)];
    let records = found.filter((record) => record !== undefined).filter((one) => wanted(one) && matches(one));
    if (request.Limit > 0) {
      records = records.sort((a, b) => createdMs(b) - createdMs(a)).slice(0, request.Limit);
    }
    return [...active, ...records.map((record) => eventOf(BuildHistoryEventType.COMPLETE, record))];
  }

  /** Notes a listener of one record; the record stays until it has left. */
  #listen(ref: string): Disposable {
    if (ref === "") return { [Symbol.dispose]: () => undefined };
    this.#listening.set(ref, (this.#listening.get(ref) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#listening.get(ref) ?? 1) - 1;
        if (left > 0) {
          this.#listening.set(ref, left);
          return;
        }
        this.#listening.delete(ref);
        if (this.#deleted.has(ref)) this.#remove(ref);
      },
    };
  }

  async update(request: UpdateBuildHistoryRequest): Promise<void> {
    const { Ref: ref } = request;
    if (request.Delete) {
      this.#delete(ref);
      return;
    }
    if (request.Finalize) {
      await this.#traces.finalize(ref);
      return;
    }
    const changed = this.#change(ref, (record) => {
      record.pinned = request.Pinned;
    });
    if (!changed) throw new BuildError("unknown", `failed to retrieve ref ${ref}: file does not exist`);
  }

  /** False when there is no such record. */
  #change(ref: string, change: (record: BuildHistoryRecord) => void): boolean {
    const record = this.#table.get(ref);
    if (record === undefined) return false;
    change(record);
    record.Generation++;
    this.#table.put(record);
    this.#send(BuildHistoryEventType.COMPLETE, record);
    return true;
  }

  async statusOf(ref: string): Promise<AsyncIterable<StatusResponse> | undefined> {
    if (this.#active.has(ref)) return undefined;
    const record = this.#table.get(ref);
    if (record === undefined) return undefined;
    const { logs } = record;
    return logs === undefined ? nothing() : replayStatus(this.#content, logs.digest);
  }

  #delete(ref: string): void {
    if (this.#table.get(ref) === undefined) {
      throw new BuildError("unknown", `failed to retrieve ref ${ref}: file does not exist`);
    }
    if (this.#listening.has(ref)) this.#deleted.add(ref);
    else this.#remove(ref);
    this.#send(BuildHistoryEventType.DELETED, create(BuildHistoryRecordSchema, { Ref: ref }));
  }

  #remove(ref: string): void {
    this.#deleted.delete(ref);
    this.#table.delete(ref);
    this.#leases.delete(LEASE_PREFIX + ref);
  }

  #hold(ref: string, digest: string): void {
    const id = LEASE_PREFIX + ref;
    if (this.#leases.get(id) === undefined) this.#leases.create(id);
    this.#leases.add(id, { kind: "content", id: digest });
  }

  #send(type: BuildHistoryEventType, record: BuildHistoryRecord): void {
    this.#feed.send(eventOf(type, record));
  }

  #collect(): void {
    const { maxAgeMs, maxEntries } = this.#opts.config;
    if (maxEntries <= 0) return;
    for (const ref of this.#table.expired(maxEntries, Date.now() - maxAgeMs)) {
      if (!this.#deleted.has(ref)) this.#delete(ref);
    }
  }

  /** Records whose log is gone and leases without a record (the daemon was killed in between). */
  #clearOrphans(): void {
    const known = new Set<string>();
    for (const record of this.#table.all()) {
      if (record.logs !== undefined && !this.#content.has(record.logs.digest)) this.#remove(record.Ref);
      else known.add(LEASE_PREFIX + record.Ref);
    }
    for (const { id } of this.#leases.list()) {
      if (id.startsWith(LEASE_PREFIX) && !known.has(id)) this.#leases.delete(id);
    }
  }
}

function eventOf(type: BuildHistoryEventType, record: BuildHistoryRecord): BuildHistoryEvent {
  return create(BuildHistoryEventSchema, { type, record });
}

async function* nothing(): AsyncGenerator<StatusResponse> {}
