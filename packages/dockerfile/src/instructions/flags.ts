import { withSuggestion } from "@kiln/formats";
import { lower } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";

/** Kinds of flags that an instruction knows. */
export type FlagKinds = Readonly<Record<string, "bool" | "string" | "strings">>;

/** Flags of an instruction. */
export interface Flags {
  /** Value of a `string` flag; empty when it isn't there. */
  text(name: string): string;
  /** Value of a `bool` flag; undefined when it isn't there. */
  bool(name: string): boolean | undefined;
  /** Values of a `strings` flag. */
  list(name: string): readonly string[];
}

/** Reads `--name[=value]` words. Throws a problem for what the instruction doesn't know. */
export function parseFlags(words: readonly string[], kinds: FlagKinds): Flags {
  const values = new Map<string, string[]>();
  for (const word of words) {
    if (word === "--") break;
    if (!word.startsWith("--")) throw new Problem(`arg should start with -- : ${word}`);
    readFlag(word, kinds, values);
  }
  return {
    text: (name) => values.get(name)?.[0] ?? "",
    bool: (name) => {
      const value = values.get(name)?.[0];
      return value === undefined ? undefined : value === "true";
    },
    list: (name) => values.get(name) ?? [],
  };
}

function readFlag(word: string, kinds: FlagKinds, values: Map<string, string[]>): void {
  const equals = word.indexOf("=");
  const flag = equals < 0 ? word : word.slice(0, equals);
  const value = equals < 0 ? undefined : word.slice(equals + 1);
  const name = flag.slice(2);
  const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
  if (kind === undefined) {
    throw new Problem(withSuggestion(`unknown flag: ${flag}`, name, Object.keys(kinds), true));
  }
  const before = values.get(name);
  if (before !== undefined && kind !== "strings") throw new Problem(`duplicate flag specified: ${flag}`);
  if (kind === "bool") {
    values.set(name, [boolValue(flag, value)]);
    return;
  }
  if (value === undefined) throw new Problem(`missing a value on flag: ${flag}`);
  if (before === undefined) values.set(name, [value]);
  else before.push(value);
}

function boolValue(flag: string, value: string | undefined): string {
  if (value === "") throw new Problem(`missing a value on flag: ${flag}`);
  const text = lower(value ?? "true");
  if (text === "true" || text === "false") return text;
  throw new Problem(`expecting boolean value for flag ${flag}, not: ${value}`);
}
