/** Go's `path.Clean`: the shortest equal path by text alone; "" gives ".". */
export function cleanPath(path: string): string {
  const rooted = path.startsWith("/");
  const out: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") out.push(part);
    else if (out.length > 0 && out.at(-1) !== "..") out.pop();
    else if (!rooted) out.push("..");
  }
  const joined = out.join("/");
  return rooted ? `/${joined}` : joined === "" ? "." : joined;
}

/** Go's `strings.TrimSpace`: Unicode white space, which (unlike `trim`) has U+0085 and lacks U+FEFF. */
export function trimSpace(text: string): string {
  return text.replace(TRIM, "");
}

const SPACE = "[\\t\\n\\v\\f\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const TRIM = new RegExp(`^${SPACE}+|(?<!${SPACE})${SPACE}+$`, "g");
