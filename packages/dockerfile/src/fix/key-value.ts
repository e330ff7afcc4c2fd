import { trimSpace } from "../base/go-text.ts";
import type { Edit, InstructionText } from "./instruction-text.ts";

/** Values that mean the same with and without quotes. */
const PLAIN = /^[A-Za-z0-9_./:@%+,=^~{}()[\]|;&!?*-]+$/;

/**
 * `ENV k v` as `ENV k=v`. Left alone where quotes, escapes or variables make it doubtful that both mean the
 * same: the old form takes the rest of the line as it is, but for quotes.
 */
export function legacyEdit(source: InstructionText): Edit | undefined {
  const { node, body, line } = source;
  if (line === undefined || node.args.length !== 3 || node.args[2] !== "") return undefined;
  const [key, value] = [node.args[0]!, node.args[1]!];
  const written = quoted(value);
  if (written === undefined || !/^[A-Za-z0-9_.-]+$/.test(key)) return undefined;
  const lead = /^\s*/.exec(line)![0].length;
  const tail = line.length - line.trimEnd().length;
  if (trimSpace(line).slice(0, key.length) !== key) return undefined;
  return {
    start: body.start + lead,
    end: body.end - tail,
    text: `${key}=${written}`,
    rule: "LegacyKeyValueFormat",
  };
}

/** The value for the new form; undefined when that isn't sure to mean the same. */
function quoted(value: string): string | undefined {
  if (value === "") return undefined;
  if (PLAIN.test(value) || isVariables(value)) return value;
  if (isWholeQuote(value)) return value;
  // Double quotes change nothing but the splitting at white space.
  return /["'\\`]/.test(value) ? undefined : `"${value}"`;
}

function isVariables(value: string): boolean {
  return /^[A-Za-z0-9_./:@%+,=^~$-]+$/.test(value);
}

/** One quoted text from end to end. */
function isWholeQuote(value: string): boolean {
  return /^"[^"'\\`]*"$/.test(value) || /^'[^"'\\`]*'$/.test(value);
}

/** `MAINTAINER x` as a label. */
export function maintainerEdit(source: InstructionText, isLower: boolean): Edit | undefined {
  const { node, keyword, body, line } = source;
  const name = node.args[0];
  if (line === undefined || name === undefined || /["\\`$]/.test(name)) return undefined;
  const tail = line.length - line.trimEnd().length;
  return {
    start: keyword.start,
    end: body.end - tail,
    text: `${isLower ? "label" : "LABEL"} org.opencontainers.image.authors="${name}"`,
    rule: "MaintainerDeprecated",
  };
}
