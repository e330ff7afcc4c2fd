/** What runtimes leave about processes of containers, and their terminals. */
import { closeSync, constants, openSync, readFileSync, statSync } from "node:fs";
import { setWindowSize } from "./libc.ts";

/** Major numbers of pseudo terminals. */
const PTS_MAJORS = { first: 136, last: 143 };

/** Sets the size of the terminal that a process has open, if it has one. */
export function resizeTerminalOf(pid: number, rows: number, cols: number): void {
  for (const number of [0, 1, 2]) {
    const path = `/proc/${pid}/fd/${number}`;
    try {
      const { rdev } = statSync(path);
      const major = (rdev >> 8) & 0xfff;
      if (major < PTS_MAJORS.first || major > PTS_MAJORS.last) continue;
      const fd = openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
      try {
        setWindowSize(fd, rows, cols);
      } finally {
        closeSync(fd);
      }
      return;
    } catch {
      // The process has ended, or hasn't this stream.
    }
  }
}

/** The process id in a file; undefined while there is none. */
export function readPid(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, "utf8"));
    return Number.isInteger(pid) && pid > 1 ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** What a runtime logged as its failure; "" when nothing. */
export function readRuntimeError(log: string): string {
  let text: string;
  try {
    text = readFileSync(log, "utf8");
  } catch {
    return "";
  }
  const errors: string[] = [];
  for (const line of text.split("\n")) {
    if (!line.includes('"error"')) continue;
    try {
      const entry: unknown = JSON.parse(line);
      if (typeof entry !== "object" || entry === null || !("level" in entry) || entry.level !== "error")
        continue;
      if ("msg" in entry && typeof entry.msg === "string") errors.push(entry.msg);
    } catch {
      // A line that a killed runtime didn't finish.
    }
  }
  return errors.join("; ");
}
