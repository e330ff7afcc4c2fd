import { getSystemErrorName } from "node:util";

/** A failed system call; shaped like the errors of `node:fs`, so that `codeOfNodeError` understands it. */
export interface SysError extends Error {
  /** `ENOENT` and the like. */
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/** The error of a system call that failed with `errno` (positive). */
export function sysError(errno: number, syscall: string, subject?: string): SysError {
  let code = `E${errno}`;
  try {
    code = getSystemErrorName(-errno);
  } catch {
    // A number that libuv has no name for.
    code = MORE_NAMES.get(errno) ?? code;
  }
  const message = `${code}: ${syscall}${subject === undefined ? "" : ` ${JSON.stringify(subject)}`}`;
  return Object.assign(new Error(message), { code, errno: -errno, syscall });
}

/** True for an error of the system with one of these codes. */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

const MORE_NAMES: ReadonlyMap<number, string> = new Map([
  [35, "EDEADLK"],
  [40, "ELOOP"],
  [117, "EUCLEAN"],
  [122, "EDQUOT"],
]);
