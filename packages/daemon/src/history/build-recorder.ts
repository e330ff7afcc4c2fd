import { create, toBinary } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  type BuildHistoryRecord,
  BuildHistoryRecordSchema,
  type BuildResultInfo,
  BuildResultInfoSchema,
  type Descriptor,
  DescriptorSchema,
  ExporterSchema,
} from "@kiln/api/control";
import { StatusSchema } from "@kiln/api/rpcstatus";
import { redactUrls } from "@kiln/base";
import {
  type BuildEnd,
  buildFailure,
  type ObservedBuild,
  type RecordedProvenance,
  shownCacheImports,
} from "@kiln/engine";
import { statusFromError } from "@kiln/grpc";
import type { SolveStatus } from "@kiln/solver";
import type { ContentStore } from "@kiln/store";
import { batchStatus, STATUS_DELAY_MS } from "../control/batch-status.ts";
import { recordStatus, STATUS_LOG_TYPE } from "./status-log.ts";

/** BuildKit's spelling of the type. */
const ERROR_TYPE = "application/vnd.googeapis.google.rpc.status+proto";
const IN_TOTO_TYPE = "application/vnd.in-toto+json";
const PREDICATE_TYPE = "in-toto.io/predicate-type";

/** Describes the trees of a result: by key, `""` for the only one. */
export type DescribeProvenance = (
  build: ObservedBuild,
  end: BuildEnd,
) => Promise<ReadonlyMap<string, RecordedProvenance>>;

/** Takes down one build while it runs. */
export class BuildRecorder {
  readonly record: BuildHistoryRecord;
  readonly #build: ObservedBuild;
  readonly #content: ContentStore;
  readonly #progress: ReturnType<typeof recordStatus>;

  /** `onStatus` sees the progress as it is recorded. */
  constructor(build: ObservedBuild, content: ContentStore, onStatus: (status: SolveStatus) => void) {
    const { request } = build;
    this.#build = build;
    this.#content = content;
    this.record = create(BuildHistoryRecordSchema, {
      Ref: request.ref,
      Frontend: request.solve.frontend,
      FrontendAttrs: withoutPasswords(request.solve.frontendAttrs),
      Exporters: request.exporters.map(({ type, attrs }) =>
        create(ExporterSchema, { Type: type, Attrs: withoutPasswords(attrs) }),
      ),
      CreatedAt: timestampNow(),
    });
    const progress = batchStatus(build.job.status(new AbortController().signal), STATUS_DELAY_MS);
    this.#progress = recordStatus(content, observed(progress, onStatus));
    // looked at when the build ends; until then a failure must not count as unhandled
    this.#progress.catch(() => undefined);
  }

  /**
   * Completes the record.
   *
   * @param hold - keeps a blob from being collected
   */
  async finish(
    end: BuildEnd,
    describe: DescribeProvenance,
    hold: (digest: string) => void,
  ): Promise<BuildHistoryRecord> {
    const { record } = this;
    record.CompletedAt = timestampNow();
    this.#build.job.closeProgress();
    for (const [key, value] of end.result?.metadata ?? []) {
      record.ExporterResponse[key] = new TextDecoder().decode(value);
    }
    const { blob, counts } = await this.#progress;
    hold(blob.digest);
    record.logs = descriptor({ ...blob, mediaType: STATUS_LOG_TYPE });
    record.numCachedSteps = counts.cached;
    record.numCompletedSteps = counts.completed;
    record.numTotalSteps = counts.total;
    record.numWarnings = counts.warnings;
    this.#addResults(end);
    if (end.result !== undefined) await this.#addProvenance(await describe(this.#build, end), hold);
    if (end.error !== undefined) await this.#addError(end.error, hold);
    return record;
  }

  #addResults(end: BuildEnd): void {
    const { record } = this;
    for (const [output, result] of end.exports?.descriptors ?? []) {
      const message = descriptor(result);
      record.Result ??= create(BuildResultInfoSchema);
      record.Result.ResultDeprecated ??= message;
      record.Result.Results[String(output)] = message;
    }
  }

  async #addProvenance(
    found: ReadonlyMap<string, RecordedProvenance>,
    hold: (digest: string) => void,
  ): Promise<void> {
    for (const [key, { predicateType, predicate }] of found) {
      const blob = await this.#content.write(predicate);
      hold(blob.digest);
      this.#resultOf(key).Attestations.push(
        descriptor({ ...blob, mediaType: IN_TOTO_TYPE, annotations: { [PREDICATE_TYPE]: predicateType } }),
      );
    }
  }

  #resultOf(key: string): BuildResultInfo {
    const { record } = this;
    if (key === "") {
      record.Result ??= create(BuildResultInfoSchema);
      return record.Result;
    }
    const result = record.Results[key] ?? create(BuildResultInfoSchema);
    record.Results[key] = result;
    return result;
  }

  async #addError(error: unknown, hold: (digest: string) => void): Promise<void> {
    const status = statusFromError(buildFailure(error));
    const blob = await this.#content.write(toBinary(StatusSchema, status));
    hold(blob.digest);
    this.record.externalError = descriptor({ ...blob, mediaType: ERROR_TYPE });
    this.record.error = create(StatusSchema, { code: status.code, message: status.message });
  }
}

async function* observed(
  progress: AsyncIterable<SolveStatus>,
  onStatus: (status: SolveStatus) => void,
): AsyncGenerator<SolveStatus> {
  for await (const status of progress) {
    onStatus(status);
    yield status;
  }
}

function descriptor(of: {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}): Descriptor {
  return create(DescriptorSchema, {
    mediaType: of.mediaType,
    digest: of.digest,
    size: BigInt(of.size),
    annotations: { ...of.annotations },
  });
}

function withoutPasswords(attrs: ReadonlyMap<string, string>): Record<string, string> {
  const shown = (key: string, value: string): string =>
    redactUrls(key === "cache-imports" ? shownCacheImports(value) : value);
  return Object.fromEntries([...attrs].map(([key, value]) => [key, shown(key, value)]));
}
