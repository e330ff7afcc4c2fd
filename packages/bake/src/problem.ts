import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { quote } from "@kiln/hcl";

/** Fails with a message about the user's definition or options. */
export function fail(message: string): never {
  throw new BuildError("invalid_argument", message);
}

/** Runs `work`; what it throws gets `prefix: ` before its message. */
export function within<T>(prefix: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (isBuildError(error))
      throw new BuildError(error.code, `${prefix}: ${errorMessage(error)}`, { cause: error });
    throw error;
  }
}

const TRUE_TEXTS = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE_TEXTS = new Set(["0", "f", "F", "false", "FALSE", "False"]);

/** A bool as Go's `strconv.ParseBool` reads it; `undefined` for anything else. */
export function parseBool(text: string): boolean | undefined {
  if (TRUE_TEXTS.has(text)) return true;
  return FALSE_TEXTS.has(text) ? false : undefined;
}

/** {@link parseBool}, or Go's complaint. */
export function requireBool(text: string): boolean {
  return parseBool(text) ?? fail(`strconv.ParseBool: parsing ${quote(text)}: invalid syntax`);
}

/** A whole number as Go's `strconv.ParseInt` reads it; `undefined` for anything else. */
export function parseInteger(text: string): number | undefined {
  if (!/^[+-]?\d+$/.test(text)) return undefined;
  const value = BigInt(text);
  return value > 2n ** 63n - 1n || value < -(2n ** 63n) ? undefined : Number(value);
}

/** The parts before and after the first separator; the second is `undefined` without one. */
export function cut(text: string, separator: string): readonly [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}
