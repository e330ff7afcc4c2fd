export { createDeferred, type Deferred, mapLimited, Semaphore, sleep, withSignal } from "./async.ts";
export { type Clock, systemClock } from "./clock.ts";
export { DisposableStore } from "./disposal.ts";
export {
  BuildError,
  codeOfNodeError,
  type ErrorCode,
  type ErrorDetails,
  errorMessage,
  isBuildError,
  isCanceled,
  nodeReason,
  redactUrls,
  unreachable,
  type WireDetail,
  wrapError,
} from "./error.ts";
