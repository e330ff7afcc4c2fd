import { BuildError } from "@kiln/base";

/** A URL in the parts of Go's `url.URL`; path and fragment are decoded. */
export interface GoUrl {
  readonly scheme: string;
  /** `user[:password]`, still encoded; undefined without `@`. */
  readonly user?: string | undefined;
  /** With port. */
  readonly host: string;
  readonly path: string;
  /** The path as it was written. */
  readonly rawPath: string;
  /** Part after the scheme of URLs without `//`. */
  readonly opaque: string;
  readonly rawQuery: string;
  readonly fragment: string;
}

/** Parses as Go's `url.Parse` does. Throws `invalid_argument` with its text. */
export function parseGoUrl(text: string): GoUrl {
  if (/[\x00-\x1f\x7f]/.test(text)) throw fail(text, "net/url: invalid control character in URL");
  const hash = text.indexOf("#");
  const rawFragment = hash < 0 ? "" : text.slice(hash + 1);
  let rest = hash < 0 ? text : text.slice(0, hash);
  const [scheme, afterScheme] = splitScheme(text, rest);
  rest = afterScheme;
  const question = rest.indexOf("?");
  const rawQuery = question < 0 ? "" : rest.slice(question + 1);
  if (question >= 0) rest = rest.slice(0, question);
  const fragment = decodePart(text, rawFragment);
  if (!rest.startsWith("/")) {
    if (scheme !== "") return { scheme, host: "", path: "", rawPath: "", opaque: rest, rawQuery, fragment };
    const segment = rest.split("/", 1)[0]!;
    if (segment.includes(":")) throw fail(text, "first path segment in URL cannot contain colon");
  }
  let authority = "";
  if (rest.startsWith("//") && (scheme !== "" || !rest.startsWith("///"))) {
    const slash = rest.indexOf("/", 2);
    authority = slash < 0 ? rest.slice(2) : rest.slice(2, slash);
    rest = slash < 0 ? "" : rest.slice(slash);
  }
  const at = authority.lastIndexOf("@");
  const host = at < 0 ? authority : authority.slice(at + 1);
  checkHost(text, host);
  return {
    scheme,
    user: at < 0 ? undefined : authority.slice(0, at),
    host,
    path: decodePart(text, rest),
    rawPath: rest,
    opaque: "",
    rawQuery,
    fragment,
  };
}

function splitScheme(text: string, rest: string): [string, string] {
  const match = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(rest);
  if (match) return [match[1]!.toLowerCase(), rest.slice(match[0].length)];
  if (rest.startsWith(":")) throw fail(text, "missing protocol scheme");
  return ["", rest];
}

function checkHost(text: string, host: string): void {
  const name = host.startsWith("[") ? host.slice(host.indexOf("]") + 1) : host;
  const colon = name.lastIndexOf(":");
  if (colon >= 0 && !/^:[0-9]*$/.test(name.slice(colon))) {
    throw fail(text, `invalid port ${JSON.stringify(name.slice(colon))} after host`);
  }
  const bad = / |"|<|>|\\|\^|`|\{|\}|\|/.exec(host);
  if (bad) throw fail(text, `invalid character ${JSON.stringify(bad[0])} in host name`);
}

function decodePart(text: string, part: string): string {
  if (!part.includes("%")) return part;
  const bad = /%(?![0-9A-Fa-f]{2}).{0,2}/su.exec(part);
  if (bad) throw fail(text, `invalid URL escape ${JSON.stringify(bad[0])}`);
  return decodePercent(part);
}

function decodePercent(part: string): string {
  const bytes: number[] = [];
  const encoded = new TextEncoder().encode(part);
  for (let i = 0; i < encoded.length; i++) {
    if (encoded[i] !== 37) bytes.push(encoded[i]!);
    else {
      bytes.push(Number.parseInt(String.fromCharCode(encoded[i + 1]!, encoded[i + 2]!), 16));
      i += 2;
    }
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

const PATH_SAFE = /[A-Za-z0-9\-_.~$&+,/:;=@]/;

/** Go's `URL.String`. */
export function formatGoUrl(url: GoUrl): string {
  let out = url.scheme === "" ? "" : `${url.scheme}:`;
  if (url.opaque !== "") out += url.opaque;
  else {
    if (url.scheme !== "" || url.host !== "" || url.user !== undefined) {
      if (url.host !== "" || url.path !== "" || url.user !== undefined) out += "//";
      if (url.user !== undefined) out += `${url.user}@`;
      out += url.host;
    }
    out += escapedPath(url);
  }
  if (url.rawQuery !== "") out += `?${url.rawQuery}`;
  if (url.fragment !== "") out += `#${url.fragment}`;
  return out;
}

/** The written form if it is a valid one, else the default encoding. */
function escapedPath(url: GoUrl): string {
  if (/^(?:[A-Za-z0-9\-_.~$&+,/:;=@!'()*[\]]|%[0-9A-Fa-f]{2})*$/.test(url.rawPath)) return url.rawPath;
  let out = "";
  for (const byte of new TextEncoder().encode(url.path)) {
    const char = String.fromCharCode(byte);
    out += byte < 128 && PATH_SAFE.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/**
 * Parses a query as Go's `URL.Query` does; bad pairs are dropped. Keys come in order of appearance.
 */
export function parseGoQuery(rawQuery: string): Map<string, string[]> {
  const out = new Map<string, string[]>();
  for (const pair of rawQuery.split("&")) {
    if (pair === "" || pair.includes(";")) continue;
    const equals = pair.indexOf("=");
    const key = queryPart(equals < 0 ? pair : pair.slice(0, equals));
    const value = queryPart(equals < 0 ? "" : pair.slice(equals + 1));
    if (key === undefined || value === undefined) continue;
    const list = out.get(key);
    if (list === undefined) out.set(key, [value]);
    else list.push(value);
  }
  return out;
}

function queryPart(part: string): string | undefined {
  const spaced = part.replaceAll("+", " ");
  if (/%(?![0-9A-Fa-f]{2})/.test(spaced)) return undefined;
  return spaced.includes("%") ? decodePercent(spaced) : spaced;
}

function fail(text: string, problem: string): BuildError {
  return new BuildError("invalid_argument", `parse ${JSON.stringify(text)}: ${problem}`);
}
