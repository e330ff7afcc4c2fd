import { BuildError } from "@kiln/base";

/**
 * JSON as Go's `json.Compact` and `json.Indent` rewrite it: white space between tokens goes or is set anew,
 * strings and numbers stay as they were written. `<`, `>`, `&`, U+2028 and U+2029 are escaped, as Go does
 * when it marshals a `json.RawMessage`.
 *
 * @param text one JSON value; "" stands for `null`.
 * @param indent white space per level; undefined for compact text.
 * @throws BuildError `invalid_argument` for what is no JSON.
 */
export function rewriteJson(text: string, indent?: string): string {
  if (text === "") return "null";
  checkJson(text);
  const out: string[] = [];
  let depth = 0;
  const newline = (): void => {
    if (indent !== undefined) out.push("\n", indent.repeat(depth));
  };
  for (let at = 0; at < text.length; ) {
    const c = text[at] as string;
    if (c === '"') {
      const end = endOfString(text, at);
      out.push(escapeHtml(text.slice(at, end)));
      at = end;
      continue;
    }
    at++;
    if (c === "{" || c === "[") {
      const next = nextToken(text, at);
      if (text[next] === "}" || text[next] === "]") {
        out.push(c, text[next] as string);
        at = next + 1;
        continue;
      }
      depth++;
      out.push(c);
      newline();
    } else if (c === "}" || c === "]") {
      depth--;
      newline();
      out.push(c);
    } else if (c === ",") {
      out.push(c);
      newline();
    } else if (c === ":") {
      out.push(indent === undefined ? ":" : ": ");
    } else if (c > " ") {
      out.push(c);
    }
  }
  return out.join("");
}

function checkJson(text: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", "predicate of an attestation is not JSON", { cause: error });
  }
}

function nextToken(text: string, from: number): number {
  let at = from;
  while ((text[at] as string) <= " ") at++;
  return at;
}

/** End of the string literal that begins at `start`; the text has been parsed, so there is one. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  for (;;) {
    const quote = text.indexOf('"', at);
    let slashes = quote;
    while (text[slashes - 1] === "\\") slashes--;
    if ((quote - slashes) % 2 === 0) return quote + 1;
    at = quote + 1;
  }
}

function escapeHtml(literal: string): string {
  return literal.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
