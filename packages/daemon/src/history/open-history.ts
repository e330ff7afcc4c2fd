import type { BuildHistoryEvent } from "@kiln/api/control";
import type { Store } from "@kiln/store";
import type { Logger } from "../log.ts";
import type { History } from "./history.ts";
export async function openHistory(_at: {
  config: { maxAgeMs: number; maxEntries: number };
  store: Store;
  log: Logger;
}): Promise<History & Disposable> {
  return {
    started: () => undefined,
    completed: async (build) => build.job.closeProgress(),
    async *listen(): AsyncGenerator<BuildHistoryEvent> {},
    update: async () => undefined,
    statusOf: async () => undefined,
    [Symbol.dispose]: () => undefined,
  };
}
