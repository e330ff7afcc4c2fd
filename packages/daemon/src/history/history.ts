import type {
  BuildHistoryEvent,
  BuildHistoryRequest,
  StatusResponse,
  UpdateBuildHistoryRequest,
} from "@kiln/api/control";
import type { BuildObserver } from "@kiln/engine";

/** The record of builds, past and running (buildkit.md §10.1). */
export interface History extends BuildObserver {
  listen(request: BuildHistoryRequest, signal: AbortSignal): AsyncIterable<BuildHistoryEvent>;
  /** @throws BuildError `not_found` for a ref that isn't recorded. */
  update(request: UpdateBuildHistoryRequest): Promise<void>;
  /** The progress of a finished build; undefined for one that runs or isn't known. */
  statusOf(ref: string, signal: AbortSignal): Promise<AsyncIterable<StatusResponse> | undefined>;
}
