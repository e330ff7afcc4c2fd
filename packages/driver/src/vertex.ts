import { errorMessage } from "@kiln/base";
import { newId } from "@kiln/formats";
import { sha256 } from "@kiln/oci";
import { type SolveStatus, solveStatus, timeNsFromMs } from "@kiln/progress";

/** Tells about the parts of a piece of work, such as layers being loaded. */
export type PartReporter = (part: {
  readonly id: string;
  readonly current: bigint;
  readonly total: bigint;
  readonly startedMs: number;
  readonly isDone: boolean;
}) => void;

/** Runs work that happens in the client and shows it as a step of the build. */
export async function asVertex<T>(
  name: string,
  onStatus: ((status: SolveStatus) => void) | undefined,
  work: (report: PartReporter) => Promise<T>,
): Promise<T> {
  const digest = sha256(newId());
  const started = timeNsFromMs(Date.now());
  const vertex = { digest, inputs: [], name, started, cached: false };
  onStatus?.(solveStatus({ vertexes: [{ ...vertex, error: "" }] }));
  const report: PartReporter = ({ id, current, total, startedMs, isDone }) => {
    const timestamp = timeNsFromMs(Date.now());
    const status = {
      id,
      vertex: digest,
      name: "",
      current,
      total,
      timestamp,
      started: timeNsFromMs(startedMs),
    };
    onStatus?.(solveStatus({ statuses: [isDone ? { ...status, completed: timestamp } : status] }));
  };
  const end = (error: string): void => {
    const completed = timeNsFromMs(Date.now());
    onStatus?.(solveStatus({ vertexes: [{ ...vertex, completed, error }] }));
  };
  try {
    const result = await work(report);
    end("");
    return result;
  } catch (error) {
    end(errorMessage(error));
    throw error;
  }
}
