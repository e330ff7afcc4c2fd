import { BuildError } from "@kiln/base";

/**
 * Splits a JSON object into its top-level fields, each value as compact text exactly as it was written
 * (Go's `map[string]json.RawMessage`): numbers keep their digits and objects their order of keys.
 *
 * @throws BuildError `invalid_argument` for anything but an object.
 */
export function splitJsonObject(text: string): Map<string, string> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", "invalid image config for export: not JSON", { cause: error });
  }
  if (parsed === null) throw new BuildError("invalid_argument", "invalid null image config for export");
  if (typeof parsed !== "object" || Array.isArray(parsed)) {
    throw new BuildError("invalid_argument", "failed to parse image config for patch: not an object");
  }
  const fields = new Map<string, string>();
  const compact = compactJson(text);
  let at = 1;
  while (compact[at] !== "}") {
    if (compact[at] === ",") at++;
    const keyEnd = endOfValue(compact, at);
    const key = JSON.parse(compact.slice(at, keyEnd)) as string;
    const valueEnd = endOfValue(compact, keyEnd + 1);
    fields.set(key, escapeHtml(compact.slice(keyEnd + 1, valueEnd)));
    at = valueEnd;
  }
  return fields;
}

/** Joins fields to an object, keys in bytewise order as Go marshals a map. */
export function joinJsonObject(fields: ReadonlyMap<string, string>): string {
  const entries = [...fields].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `{${entries.map(([key, value]) => `${escapeHtml(JSON.stringify(key))}:${value}`).join(",")}}`;
}

/** JSON without white space between its tokens. */
function compactJson(text: string): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    const c = text[at] as string;
    if (c === '"') {
      const end = endOfString(text, at);
      out += text.slice(at, end);
      at = end;
      continue;
    }
    if (c > " ") out += c;
    at++;
  }
  return out;
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

/** End of the value that begins at `start` of compact JSON. */
function endOfValue(text: string, start: number): number {
  let depth = 0;
  let at = start;
  for (;;) {
    const c = text[at] as string;
    if (c === '"') {
      at = endOfString(text, at);
      if (depth === 0) return at;
      continue;
    }
    if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") {
      if (depth === 0) return at;
      depth--;
      if (depth === 0) return at + 1;
    } else if (depth === 0 && (c === "," || c === ":")) return at;
    at++;
  }
}

/** Go escapes these in every string; outside of strings they can't stand. */
function escapeHtml(text: string): string {
  return text.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
