import { BuildError } from "@kiln/base";
import { csvFields, parseDurationMs, suggest } from "@kiln/formats";
import {
  type DaemonOption,
  eachOption,
  type OptionName,
  type OptionValue,
  type OptionValues,
} from "./options.ts";

/** Short names of flags. */
const SHORT: Readonly<Record<string, OptionName>> = { v: "version", h: "help" };

/**
 * Reads the command line (`--name value`, `--name=value`, `--bool`, repeated lists) and the environment.
 * A repeated list is not split at commas.
 *
 * @throws BuildError `invalid_argument` for what it doesn't know.
 */
export function parseFlags(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): OptionValues {
  const values = new Map<OptionName, OptionValue>();
  for (const [name, option] of eachOption()) {
    const text = option.env === undefined ? undefined : env[option.env];
    if (text !== undefined && text !== "") values.set(name, convert(option, text, [], option.env ?? ""));
  }
  const seen = new Set<OptionName>();
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string;
    if (!arg.startsWith("-") || arg === "-") throw invalid(`unexpected argument ${JSON.stringify(arg)}`);
    const text = arg.replace(/^--?/, "");
    const equals = text.indexOf("=");
    const word = equals < 0 ? text : text.slice(0, equals);
    const [name, option] = findFlag(word);
    let value = equals < 0 ? undefined : text.slice(equals + 1);
    if (value === undefined && option.kind !== "bool") {
      value = args[++at];
      if (value === undefined) throw invalid(`flag needs an argument: --${word}`);
    }
    const before = seen.has(name) ? values.get(name) : undefined;
    values.set(name, convert(option, value ?? "true", before, `--${word}`));
    seen.add(name);
  }
  return values;
}

function findFlag(word: string): readonly [OptionName, DaemonOption] {
  const short = Object.hasOwn(SHORT, word) ? SHORT[word] : undefined;
  const found = eachOption().find(([name, option]) => option.flag === word || name === short);
  if (found !== undefined) return found;
  const flags = eachOption().flatMap(([, option]) => (option.flag === undefined ? [] : [option.flag]));
  const near = suggest(word, flags, true);
  throw invalid(
    `flag provided but not defined: -${word}${near === undefined ? "" : ` (did you mean --${near}?)`}`,
  );
}

function convert(option: DaemonOption, text: string, before: unknown, where: string): OptionValue {
  switch (option.kind) {
    case "string":
      return text;
    case "auto":
      if (!["auto", "true", "false", "1", "0", "t", "f"].includes(text)) throw badValue(text, where);
      return text;
    case "bool":
      if (/^(?:1|t|true)$/i.test(text)) return true;
      if (/^(?:0|f|false)$/i.test(text)) return false;
      throw badValue(text, where);
    case "int":
      if (!/^-?\d{1,15}$/.test(text)) throw badValue(text, where);
      return Number(text);
    case "list":
      return [...(Array.isArray(before) ? before : []), text];
    case "pairs": {
      const pairs = new Map(before instanceof Map ? before : []);
      for (const field of csvFields(text)) {
        const at = field.indexOf("=");
        if (at < 0) throw badValue(text, where);
        pairs.set(field.slice(0, at), field.slice(at + 1));
      }
      return pairs;
    }
  }
}

/** Options that a parsed TOML file sets; unknown keys are ignored, as buildkitd does. */
export function optionsOfToml(file: Readonly<Record<string, unknown>>): OptionValues {
  const values = new Map<OptionName, OptionValue>();
  for (const [name, option] of eachOption()) {
    if (option.toml === undefined) continue;
    const value = lookUp(file, option.toml.split("."));
    if (value !== undefined) values.set(name, valueOfToml(option, value));
  }
  return values;
}

/** The value under a path of keys; undefined when any is missing. */
export function lookUp(table: unknown, path: readonly string[]): unknown {
  let at: unknown = table;
  for (const key of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<string, unknown>)[key];
  }
  return at;
}

function valueOfToml(option: DaemonOption, value: unknown): OptionValue {
  const where = option.toml ?? "";
  switch (option.kind) {
    case "list":
      if (!Array.isArray(value)) throw badValue(JSON.stringify(value), where);
      return value.map(String);
    case "pairs":
      if (typeof value !== "object" || value === null) throw badValue(JSON.stringify(value), where);
      return new Map(Object.entries(value).map(([key, item]) => [key, String(item)]));
    case "int":
      return convert(option, String(value), undefined, where);
    case "bool":
      if (typeof value !== "boolean") throw badValue(JSON.stringify(value), where);
      return value;
    default:
      return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
}

function badValue(text: string, where: string): BuildError {
  return invalid(`invalid value ${JSON.stringify(text)} for ${where}`);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}

/** A Go duration, or a bare number of seconds. */
export function durationOf(value: unknown, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === "number" || typeof value === "bigint") return Number(value) * 1000;
  return parseDurationMs(String(value));
}
