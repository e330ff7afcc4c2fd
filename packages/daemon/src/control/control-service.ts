import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Control, StatusResponse, UsageRecord } from "@kiln/api/control";
import { UsageRecordSchema } from "@kiln/api/control";
import {
  type BuildkitVersion,
  BuildkitVersionSchema,
  type WorkerRecord,
  WorkerRecordSchema,
} from "@kiln/api/worker";
import { BuildError } from "@kiln/base";
import {
  dropPullLeases,
  type Engine,
  KILN_BUILDKIT_VERSION,
  KILN_PACKAGE,
  KILN_REVISION,
  platformMessage,
  withBuildCode,
} from "@kiln/engine";
import type { CallContext, ServiceHandlers } from "@kiln/grpc";
import type { SessionManager } from "@kiln/session";
import type { PruneOptions, Store, UsageInfo } from "@kiln/store";
import type { History } from "../history/history.ts";
import { batchStatus, STATUS_DELAY_MS } from "./batch-status.ts";
import { solveRequestOf } from "./solve-request.ts";
import { statusResponses } from "./status-wire.ts";

/** What the control API works with. */
export interface ControlHost {
  readonly engine: Engine;
  readonly sessions: SessionManager;
  readonly history: History;
  readonly leases: Store["leases"];
  /** Holds the cache's cap while a build runs, until disposed of. */
  readonly watchCap: () => Disposable;
  /** Room on the disk that is kept back for notes about removals; made anew for each build. */
  readonly reserve: Store["reserve"];
  /** Called after each build and prune: the background collection may run. */
  readonly afterBuild: () => void;
  /** Tells the daemon that it is in use, until disposed of. */
  readonly busy: () => Disposable;
}

/** Handlers of `moby.buildkit.v1.Control` (buildkit.md §2.1). */
export function controlHandlers(host: ControlHost): ServiceHandlers<typeof Control> {
  const builds = { running: 0 };
  return {
    ...cacheHandlers(host, builds),
    solve: async (message, ctx) => {
      using _busy = host.busy();
      using _watch = host.watchCap();
      builds.running++;
      try {
        host.reserve.restore();
        const response = await withBuildCode(() =>
          host.engine.solve(solveRequestOf(message, ctx.metadata.get("traceparent")), ctx.signal),
        );
        return { ExporterResponse: Object.fromEntries(response) };
      } finally {
        builds.running--;
        host.afterBuild();
      }
    },
    status: (message, ctx) => statusStream(host, message.Ref, ctx),
    session: async (call, ctx) => {
      using _busy = host.busy();
      await host.sessions.serve(call, ctx);
    },
    listWorkers: (message) => {
      const { worker } = host.engine;
      const record = workerRecord(host.engine);
      const wanted =
        message.filter.length === 0 || message.filter.some((text) => matchesWorker(text, worker));
      return { record: wanted ? [record] : [] };
    },
    info: () => ({ buildkitVersion: versionMessage() }),
    listenBuildHistory: (message, ctx) => {
      sendTimestamp(ctx);
      return host.history.listen(message, ctx.signal);
    },
    updateBuildHistory: async (message) => {
      await host.history.update(message);
      return {};
    },
  };
}

function cacheHandlers(
  host: ControlHost,
  builds: { readonly running: number },
): ServiceHandlers<typeof Control> {
  const { refs } = host.engine.worker;
  return {
    diskUsage: async (message) => {
      const records = await refs.diskUsage({
        filters: message.filter,
        ...(message.ageLimit > 0n ? { ageLimitMs: Number(message.ageLimit / 1_000_000n) } : {}),
      });
      return { record: records.map(usageMessage) };
    },
    prune: async function* (message, ctx) {
      const found: UsageRecord[] = [];
      let wake: (() => void) | undefined;
      let failure: unknown;
      let done = false;
      const rule: PruneOptions = {
        filters: message.filter,
        all: message.all,
        keepDurationMs: Number(message.keepDuration / 1_000_000n),
        reservedSpace: Number(message.reservedSpace),
        maxUsedSpace: Number(message.maxUsedSpace),
        minFreeSpace: Number(message.minFreeSpace),
      };
      dropPullLeases(host.leases);
      const work = refs
        .prune(
          [rule],
          (record) => {
            found.push(usageMessage(record));
            wake?.();
          },
          ctx.signal,
        )
        // what a build has fetched but not yet named is safe for a while; without builds there is no such thing
        .then(() => (builds.running === 0 ? refs.collectContent(0) : undefined))
        .catch((error: unknown) => {
          failure = error;
        })
        .finally(() => {
          done = true;
          wake?.();
        });
      while (!done || found.length > 0) {
        const next = found.shift();
        if (next !== undefined) yield next;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (done || found.length > 0) resolve();
          });
      }
      await work;
      if (failure !== undefined) throw failure;
    },
  };
}

async function* statusStream(
  host: ControlHost,
  ref: string,
  ctx: CallContext,
): AsyncGenerator<StatusResponse> {
  sendTimestamp(ctx);
  const replay = await host.history.statusOf(ref, ctx.signal);
  if (replay !== undefined) {
    yield* replay;
    return;
  }
  const job = await host.engine.job(ref, ctx.signal);
  for await (const status of batchStatus(job.status(ctx.signal), STATUS_DELAY_MS)) {
    yield* statusResponses(status);
  }
}

/** Clients work out with it how far their clock is off. */
function sendTimestamp(ctx: CallContext): void {
  ctx.sendHeaders({ "buildkit-current-timestamp": new Date().toISOString() });
}

function versionMessage(): BuildkitVersion {
  return create(BuildkitVersionSchema, {
    package: KILN_PACKAGE,
    version: KILN_BUILDKIT_VERSION,
    revision: KILN_REVISION,
  });
}

function workerRecord(engine: Engine): WorkerRecord {
  const { worker } = engine;
  return create(WorkerRecordSchema, {
    ID: worker.id,
    Labels: Object.fromEntries(worker.labels),
    platforms: worker.platforms().map(platformMessage),
    GCPolicy: worker.gcPolicy.map((rule) => ({
      all: rule.all ?? false,
      keepDuration: BigInt(rule.keepDurationMs ?? 0) * 1_000_000n,
      filters: [...(rule.filters ?? [])],
      reservedSpace: BigInt(Math.floor(rule.reservedSpace ?? 0)),
      maxUsedSpace: BigInt(Math.floor(rule.maxUsedSpace ?? 0)),
      minFreeSpace: BigInt(Math.floor(rule.minFreeSpace ?? 0)),
    })),
    BuildkitVersion: versionMessage(),
    CDIDevices: worker.devices().map(({ name, autoAllow, annotations }) => ({
      Name: name,
      AutoAllow: autoAllow,
      Annotations: Object.fromEntries(annotations),
    })),
  });
}

/** `id==x` or `labels.key==x`, parts joined by commas. */
function matchesWorker(
  text: string,
  worker: { readonly id: string; readonly labels: ReadonlyMap<string, string> },
): boolean {
  return text.split(",").every((part) => {
    const match = /^(id|labels\.(?:"([^"]+)"|([^=!~]+)))\s*(==|!=)\s*"?([^"]*)"?$/.exec(part.trim());
    if (match === null)
      throw new BuildError("invalid_argument", `invalid worker filter ${JSON.stringify(text)}`);
    const have = match[1] === "id" ? worker.id : (worker.labels.get(match[2] ?? match[3] ?? "") ?? "");
    return (have === match[5]) === (match[4] === "==");
  });
}

function usageMessage(info: UsageInfo): UsageRecord {
  return create(UsageRecordSchema, {
    ID: info.id,
    Mutable: info.mutable,
    InUse: info.inUse,
    Size: BigInt(info.sizeBytes),
    CreatedAt: timestampFromMs(info.createdAt),
    ...(info.lastUsedAt === undefined ? {} : { LastUsedAt: timestampFromMs(info.lastUsedAt) }),
    UsageCount: BigInt(info.usageCount),
    Description: info.description,
    RecordType: info.recordType,
    Shared: info.shared,
    Parents: [...info.parents],
    Parent: info.parents[0] ?? "",
  });
}
