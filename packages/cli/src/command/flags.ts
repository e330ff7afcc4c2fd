/**
 * Command-line flags with pflag's rules: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, joined
 * switches (`-qD`), flags between arguments, `--` before arguments only. With `style: "go"` they follow Go's own
 * package: one or two dashes mean the same, letters aren't joined, and the first argument ends the flags.
 */
import { BuildError, errorMessage } from "@kiln/base";
import { suggest } from "@kiln/formats";

/** What kind of value a flag takes. `list` may be repeated, `csv` besides splits every value at commas. */
export type FlagKind = "string" | "bool" | "list" | "csv";

/** One flag: the only place where its parsing, help and documentation come from. */
export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  readonly kind: FlagKind;
  readonly usage: string;
  /** The value's type in help texts; by kind if absent. */
  readonly typeName?: string;
  /** Value when the flag isn't given. */
  readonly defaultValue?: string;
  readonly hidden?: boolean;
  /** Value of the bare flag, which then takes none from the next argument. */
  readonly bareValue?: string;
  /** Warning when the flag is used. */
  readonly warning?: string;
  /** What to use instead: the flag's use is told to be deprecated. */
  readonly deprecated?: string;
  /** Throws for a value that is not one; its message ends the error. */
  readonly check?: (value: string) => void;
  /** Another flag's name that this one is a different spelling of. */
  readonly aliasOf?: string;
}

/** What was given on a command line. */
export class FlagValues {
  readonly #specs: ReadonlyMap<string, FlagSpec>;
  readonly #given = new Map<string, string[]>();
  readonly #used = new Set<FlagSpec>();
  #last: readonly string[] = [];

  constructor(specs: Iterable<FlagSpec>) {
    this.#specs = new Map([...specs].map((spec) => [spec.name, spec]));
  }

  add(name: string, value: string): void {
    const values = this.#given.get(name);
    if (values) values.push(value);
    else this.#given.set(name, [value]);
    this.#last = [...this.#last.filter((other) => other !== name), name];
  }

  /** Which of these flags came last on the command line; undefined when none is there. */
  lastOf(...names: readonly string[]): string | undefined {
    return this.#last.findLast((name) => names.includes(name));
  }

  /** True when the flag stands on the command line. */
  changed(name: string): boolean {
    return this.#given.has(name);
  }

  /** The last value given, else the default, else empty. */
  string(name: string): string {
    return this.#given.get(name)?.at(-1) ?? this.#specs.get(name)?.defaultValue ?? "";
  }

  bool(name: string): boolean {
    const text = this.string(name);
    return text !== "" && parseGoBool(text);
  }

  /** All values given, in order. */
  list(name: string): readonly string[] {
    const given = this.#given.get(name);
    if (given) return given;
    const preset = this.#specs.get(name)?.defaultValue;
    return preset === undefined ? [] : [preset];
  }

  /** The flags given, in the order of their definition. */
  given(): Iterable<FlagSpec> {
    return this.#used;
  }

  /** Remembers the spelling that a flag was given in. */
  use(spec: FlagSpec): void {
    this.#used.add(spec);
  }
}

/** A parsed command line. */
export interface ParsedLine {
  readonly args: readonly string[];
  readonly flags: FlagValues;
}

/** Parses `argv` (program and commands removed). @throws BuildError `invalid_argument` in pflag's words. */
export function parseFlags(
  argv: readonly string[],
  specs: readonly FlagSpec[],
  opts: { style?: "pflag" | "go" } = {},
): ParsedLine {
  return new Parser(specs, opts.style ?? "pflag").parse(argv);
}

/** Go's `strconv.ParseBool`. */
export function parseGoBool(text: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw usageError(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** An error about what the user typed. */
export function usageError(message: string, hint?: string): BuildError {
  return new BuildError("invalid_argument", message, hint === undefined ? {} : { hint });
}

/** `did you mean X?` for the name nearest to what was typed, undefined when none is near. */
export function nearestHint(typed: string, names: Iterable<string>, prefix = ""): string | undefined {
  const near = suggest(typed, names, true);
  return near === undefined ? undefined : `did you mean ${prefix}${near}?`;
}

class Parser {
  readonly #byName = new Map<string, FlagSpec>();
  readonly #byShort = new Map<string, FlagSpec>();
  readonly #style: "pflag" | "go";
  readonly #values: FlagValues;
  readonly #args: string[] = [];
  #rest: string[] = [];

  constructor(specs: readonly FlagSpec[], style: "pflag" | "go") {
    for (const spec of specs) {
      this.#byName.set(spec.name, spec);
      if (spec.short) this.#byShort.set(spec.short, spec);
    }
    this.#style = style;
    this.#values = new FlagValues(specs);
  }

  parse(argv: readonly string[]): ParsedLine {
    this.#rest = [...argv];
    for (let arg = this.#rest.shift(); arg !== undefined; arg = this.#rest.shift()) {
      if (arg === "--") {
        this.#args.push(...this.#rest);
        break;
      }
      if (arg === "-" || !arg.startsWith("-")) {
        this.#args.push(arg);
        continue;
      }
      if (arg.startsWith("--")) this.#long(arg.slice(2), arg);
      else if (this.#style === "go") this.#long(arg.slice(1), arg);
      else this.#shorts(arg);
    }
    return { args: this.#args, flags: this.#values };
  }

  #long(text: string, arg: string): void {
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    if (name === "" || name.startsWith("-")) throw usageError(`bad flag syntax: ${arg}`);
    const short = this.#style === "go" ? this.#byShort.get(name) : undefined;
    const spec = this.#byName.get(name) ?? short;
    if (spec === undefined) {
      throw usageError(
        this.#style === "go" ? `flag provided but not defined: -${name}` : `unknown flag: --${name}`,
        nearestHint(name, this.#visibleNames(), "--"),
      );
    }
    if (equals >= 0) this.#set(spec, text.slice(equals + 1));
    else this.#set(spec, bareValue(spec) ?? this.#next(`--${name}`));
  }

  #visibleNames(): string[] {
    return [...this.#byName.values()].filter((spec) => !spec.hidden).map((spec) => spec.name);
  }

  #shorts(arg: string): void {
    let rest = arg.slice(1);
    while (rest !== "") {
      const letter = rest[0] as string;
      const spec = this.#byShort.get(letter);
      if (spec === undefined) throw usageError(`unknown shorthand flag: '${letter}' in -${rest}`);
      if (rest[1] === "=") {
        this.#set(spec, rest.slice(2));
        return;
      }
      const bare = bareValue(spec);
      if (bare !== undefined) {
        this.#set(spec, bare);
        rest = rest.slice(1);
        continue;
      }
      this.#set(spec, rest.length > 1 ? rest.slice(1) : this.#next(`'${letter}' in -${rest}`));
      return;
    }
  }

  #next(flag: string): string {
    const value = this.#rest.shift();
    if (value === undefined)
      throw usageError(`flag needs an argument: ${flag.replace(/^--/, this.#dashes())}`);
    return value;
  }

  #dashes(): string {
    return this.#style === "go" ? "-" : "--";
  }

  #set(spec: FlagSpec, value: string): void {
    try {
      if (spec.kind === "bool") parseGoBool(value);
      spec.check?.(value);
    } catch (error) {
      const short = spec.short ? `-${spec.short}, ` : "";
      throw usageError(
        `invalid argument ${JSON.stringify(value)} for "${short}--${spec.name}" flag: ${errorMessage(error)}`,
      );
    }
    this.#values.use(spec);
    const name = spec.aliasOf ?? spec.name;
    if (spec.kind !== "csv") this.#values.add(name, value);
    else for (const part of splitCsv(value)) this.#values.add(name, part);
  }
}

function bareValue(spec: FlagSpec): string | undefined {
  return spec.bareValue ?? (spec.kind === "bool" ? "true" : undefined);
}

/** The fields of one CSV record; quotes may surround a field and are doubled inside one. */
function splitCsv(text: string): string[] {
  if (text === "") return [];
  const fields: string[] = [];
  const pattern = /(?:"((?:[^"]|"")*)"|([^,]*))(,|$)/gy;
  for (;;) {
    const match = pattern.exec(text);
    if (match === null)
      throw usageError(`parse error in ${JSON.stringify(text)}: bare " in non-quoted field`);
    fields.push(match[1] === undefined ? (match[2] as string) : match[1].replaceAll('""', '"'));
    if (match[3] === "") return fields;
  }
}
