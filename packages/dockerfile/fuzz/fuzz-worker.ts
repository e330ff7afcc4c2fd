// One thread of fuzz.ts.
import { parentPort, workerData } from "node:worker_threads";
import { checkInvariants } from "../src/testing/invariants.ts";
import { randomDockerfile, randomFrom } from "../src/testing/random-dockerfile.ts";

/** Cases `first` to `first + cases` of a seed. */
export interface FuzzJob {
  readonly seed: number;
  readonly first: number;
  readonly cases: number;
}

/** How far a thread is; a failure is its last report. */
export interface FuzzReport {
  readonly done: number;
  readonly failure?: { readonly text: string; readonly at: number; readonly message: string };
}

const REPORTED_EVERY = 5000;

async function failureOf(text: string): Promise<string | undefined> {
  try {
    await checkInvariants(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
}

/** Leaves out what isn't needed for a text to fail: halves, lines, then characters. */
async function shrink(text: string): Promise<string> {
  let best = text;
  for (let size = Math.ceil(best.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < best.length; ) {
      const shorter = best.slice(0, at) + best.slice(at + size);
      if ((await failureOf(shorter)) === undefined) at += size;
      else best = shorter;
    }
  }
  return best;
}

async function run({ seed, first, cases }: FuzzJob): Promise<void> {
  const traces = Error.stackTraceLimit;
  // every diagnostic is an exception on its way, whose trace nobody reads
  Error.stackTraceLimit = 0;
  for (let done = 0; done < cases; done++) {
    const at = first + done;
    const text = randomDockerfile(randomFrom(Math.imul(seed, 0x9e3779b1) ^ at));
    const failed = await failureOf(text);
    if (failed !== undefined) {
      const shortest = await shrink(text);
      Error.stackTraceLimit = traces;
      const message = (await failureOf(shortest)) ?? failed;
      parentPort?.postMessage({ done: done + 1, failure: { text: shortest, at, message } });
      return;
    }
    if (done % REPORTED_EVERY === 0) parentPort?.postMessage({ done });
  }
  parentPort?.postMessage({ done: cases });
}

await run(workerData as FuzzJob);
