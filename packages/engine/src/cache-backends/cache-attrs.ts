import { BuildError } from "@kiln/base";

/** Attributes of one `--cache-to` or `--cache-from`. */
export type CacheAttrs = ReadonlyMap<string, string>;

/** How one attribute is read. */
export interface AttrSpec<T> {
  /** @throws BuildError `invalid_argument`. */
  readonly parse: (value: string, name: string) => T;
  /** What it is when it isn't given, also in the environment. */
  readonly otherwise: T;
  /** Environment variable of the daemon that stands in for it. */
  readonly env?: string;
  /** What may be shown of a value that is, or holds, a secret. */
  readonly shown?: (value: string) => string;
}

/** The attributes of a backend, by name. What isn't named here is somebody else's and not looked at. */
export type AttrSpecs = Readonly<Record<string, AttrSpec<unknown>>>;

/** What {@link readAttrs} gives for specs. */
export type AttrValues<S extends AttrSpecs> = {
  readonly [K in keyof S]: S[K] extends AttrSpec<infer T> ? T : never;
};

/** Environment of the daemon. */
export type CacheEnv = Readonly<Record<string, string | undefined>>;

/** Reads the attributes that `specs` names. */
export function readAttrs<S extends AttrSpecs>(
  attrs: CacheAttrs,
  specs: S,
  env: CacheEnv = {},
): AttrValues<S> {
  const out: Record<string, unknown> = Object.create(null);
  for (const [name, spec] of Object.entries(specs)) {
    const value = attrs.get(name) ?? (spec.env === undefined ? undefined : env[spec.env]);
    out[name] = value === undefined ? spec.otherwise : spec.parse(value, name);
  }
  return out as AttrValues<S>;
}

/** Any text. */
export function textAttr(otherwise: string, env?: string): AttrSpec<string> {
  return { parse: (value) => value, otherwise, ...(env === undefined ? {} : { env }) };
}

/** Text that nobody may see: {@link HIDDEN} stands for it in records. */
export function secretAttr(): AttrSpec<string> {
  return { ...textAttr(""), shown: () => HIDDEN };
}

/** What is shown for secrets; Go's `url.Redacted` writes it so. */
export const HIDDEN = "xxxxx";

/** Text, undefined when it isn't given. */
export function optionalAttr(env?: string): AttrSpec<string | undefined> {
  return { parse: (value) => value, otherwise: undefined, ...(env === undefined ? {} : { env }) };
}

/** What Go's `strconv.ParseBool` takes. */
export function flagAttr<T extends boolean | undefined>(otherwise: T): AttrSpec<boolean | T> {
  return {
    otherwise,
    parse: (value, name) => {
      const flag = parseGoBool(value);
      if (flag === undefined) {
        const text = JSON.stringify(value);
        throw invalid(`failed to parse ${name}: strconv.ParseBool: parsing ${text}: invalid syntax`);
      }
      return flag;
    },
  };
}

/** A flag whose bad values are passed over. */
export function lenientFlagAttr(otherwise: boolean): AttrSpec<boolean> {
  return { otherwise, parse: (value) => parseGoBool(value) ?? otherwise };
}

/** A whole number above zero. */
export function countAttr(otherwise: number): AttrSpec<number> {
  return {
    otherwise,
    parse: (value, name) => {
      const count = /^\+?\d{1,9}$/.test(value) ? Number(value) : 0;
      if (count < 1) throw invalid(`${name} must be a positive integer`);
      return count;
    },
  };
}

/** Several names, separated by semicolons. */
export function namesAttr(otherwise: string): AttrSpec<readonly string[]> {
  return { otherwise: [otherwise], parse: (value) => value.split(";") };
}

/** Go's `strconv.ParseBool`; undefined for anything else. */
export function parseGoBool(value: string): boolean | undefined {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  return undefined;
}

/** An attribute that can't be taken. */
export function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
