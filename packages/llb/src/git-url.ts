import { BuildError } from "@kiln/base";
import { joinPath } from "./go-path.ts";
import { formatGoUrl, parseGoQuery, parseGoUrl } from "./go-url.ts";

/** Where a git repository is. */
export interface GitUrl {
  readonly scheme: "http" | "https" | "ssh" | "git";
  readonly host: string;
  readonly path: string;
  readonly query: ReadonlyMap<string, readonly string[]>;
  /** From the fragment `#ref:subdir`. */
  readonly ref: string;
  readonly subdir: string;
  /** What git is called with: without query and fragment. */
  readonly remote: string;
}

const PROTOCOL = /^[a-zA-Z0-9]+:\/\//;
const SCP_STYLE = /^([a-zA-Z0-9-_]+)@([a-zA-Z0-9-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?$/;

/**
 * Reads a git URL, or an scp-style one (`git@host:path`). Undefined for text that is neither. Throws
 * `invalid_argument` for other protocols and malformed URLs.
 */
export function parseGitUrl(text: string): GitUrl | undefined {
  const protocol = PROTOCOL.exec(text)?.[0].slice(0, -3).toLowerCase();
  if (protocol !== undefined) {
    if (!isGitProtocol(protocol)) throw new BuildError("invalid_argument", `${protocol}: invalid protocol`);
    return gitUrlOf(text);
  }
  const match = SCP_STYLE.exec(text);
  if (!match) return undefined;
  const [, user, host, path, query, fragment] = match;
  return {
    scheme: "ssh",
    host: host!,
    path: path!,
    query: parseGoQuery(query ?? ""),
    ...splitFragment(fragment ?? ""),
    remote: `${user}@${host}:${path}`,
  };
}

/** Reads a URL that has a scheme; `scheme` replaces it. */
export function gitUrlOf(text: string, scheme?: GitUrl["scheme"]): GitUrl {
  const parsed = parseGoUrl(text);
  const url = scheme === undefined ? parsed : { ...parsed, scheme };
  return {
    scheme: url.scheme as GitUrl["scheme"],
    host: url.host,
    path: url.path,
    query: parseGoQuery(url.rawQuery),
    ...splitFragment(url.fragment),
    remote: formatGoUrl({ ...url, rawQuery: "", fragment: "" }),
  };
}

function isGitProtocol(name: string): boolean {
  return name === "http" || name === "https" || name === "ssh" || name === "git";
}

function splitFragment(fragment: string): { ref: string; subdir: string } {
  const colon = fragment.indexOf(":");
  if (colon < 0) return { ref: fragment, subdir: "" };
  return { ref: fragment.slice(0, colon), subdir: cleanSubdir(fragment.slice(colon + 1)) };
}

/** A sub-directory without leading slash, `.` and `..`. */
export function cleanSubdir(subdir: string): string {
  return joinPath("/", subdir).slice(1);
}
