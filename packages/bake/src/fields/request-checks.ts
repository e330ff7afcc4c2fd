import { quote } from "@kiln/hcl";
import { fail, parseBool } from "../problem.ts";
import type { OutputOption, SecretOption, SshOption } from "../request.ts";
import type { ExportEntry, SecretEntry, SshEntry } from "./entries.ts";
import { uniqueByKey } from "./field-kinds.ts";
import type { RequestHost } from "./request-draft.ts";

const MAX_SECRET_BYTES = 500 * 1024;
const MAX_KEY_BYTES = 100 * 1024;

/** Go's complaint about a path that isn't there. */
function missing(operation: "stat" | "open", path: string): string {
  return `${operation} ${path}: no such file or directory`;
}

/** Where a secret comes from when neither file nor variable is named. */
export function resolveSecret(entry: SecretEntry, host: RequestHost): SecretEntry {
  if (entry.env !== "" || entry.src !== "") return entry;
  return host.env(entry.id) === undefined ? { ...entry, src: entry.id } : { ...entry, env: entry.id };
}

/** Looks at the files that secrets name, as they would fail in the middle of the build. */
export function checkSecrets(entries: readonly SecretEntry[], host: RequestHost): SecretOption[] {
  const unique = uniqueByKey(entries, (entry) => entry.id);
  for (const entry of unique) {
    if (entry.id === "") fail("secret missing ID");
    const { src } = resolveSecret(entry, host);
    if (src === "") continue;
    const stat = host.stat(src) ?? fail(`failed to stat ${src}: ${missing("stat", src)}`);
    if (stat.size > MAX_SECRET_BYTES) fail(`secret ${entry.id} too big. max size 500KiB`);
  }
  return unique.map(({ id, src, env }) => ({
    id,
    ...(src === "" ? {} : { src }),
    ...(env === "" ? {} : { env }),
  }));
}

const NO_AGENT = "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set";
const decoder = new TextDecoder();

/** Looks at agents' sockets and key files. */
export function checkSsh(entries: readonly SshEntry[], host: RequestHost): SshOption[] {
  const ids = new Set<string>();
  for (const entry of entries) {
    const id = entry.id === "" ? "default" : entry.id;
    if (ids.has(id)) fail(`duplicate agent ID ${quote(id)}`);
    ids.add(id);
    const given =
      entry.paths.length === 0 || (entry.paths.length === 1 && entry.paths[0] === "") ? [] : entry.paths;
    const agent = host.env("SSH_AUTH_SOCK") ?? "";
    const prefix = `failed to convert agent config {${id} [${entry.paths.join(" ")}] false}`;
    const paths = given.length > 0 ? given : [agent];
    if (paths[0] === "") fail(`${prefix}: ${NO_AGENT}`);
    const problem = checkAgentPaths(paths, host);
    if (problem !== undefined)
      fail(`${prefix}: failed to convert agent config for ID: ${quote(id)}: ${problem}`);
  }
  return entries.map(({ id, paths }) => ({ id, paths }));
}

function checkAgentPaths(paths: readonly string[], host: RequestHost): string | undefined {
  let socket = false;
  let keys = false;
  for (const path of paths) {
    if (socket) return "only single socket allowed";
    const stat = host.stat(path);
    if (stat === undefined) return missing("stat", path);
    if (stat.kind === "socket") {
      socket = true;
      continue;
    }
    if (stat.kind === "directory") return `failed to read ${path}: read ${path}: is a directory`;
    const problem = keyProblem(decoder.decode(host.readFile(path)?.subarray(0, MAX_KEY_BYTES)));
    if (problem !== undefined) return `failed to parse ${path}: ${problem}`;
    keys = true;
  }
  return socket && keys ? "invalid combination of keys and sockets" : undefined;
}

function keyProblem(text: string): string | undefined {
  const match = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n[\s\S]*?-----END \1-----/.exec(text);
  if (match === null) return "ssh: no key found";
  if (/Proc-Type:\s*4,ENCRYPTED/.test(match[0])) return "ssh: this private key is passphrase protected";
  const kinds = [
    "RSA PRIVATE KEY",
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "DSA PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
  ];
  return kinds.includes(match[1] ?? "") ? undefined : `ssh: unsupported key type ${quote(match[1] ?? "")}`;
}

/** Checks where outputs go; `registry` becomes `image` with push. */
export function checkOutputs(entries: readonly ExportEntry[], host: RequestHost): OutputOption[] {
  let stdoutUsed = false;
  return entries.map((entry) => {
    const attrs = new Map(entry.attrs);
    let { type, dest } = entry;
    if (type === "registry") {
      type = "image";
      attrs.set("push", "true");
      if (!attrs.has("unpack")) attrs.set("unpack", "false");
    }
    const archive = type === "oci" || type === "docker";
    const file = type === "tar" || (archive && parseBool(attrs.get("tar") ?? "") !== false);
    if (type === "local" || (archive && !file)) checkDirectory(type, dest, host);
    if (file) {
      if (dest === "" && type !== "docker") dest = "-";
      if (dest === "-") {
        if (stdoutUsed) fail("multiple outputs configured to write to stdout");
        if (host.stdoutIsTerminal)
          fail(`dest file is required for ${type} exporter. refusing to write to console`);
        stdoutUsed = true;
      } else if (dest !== "" && host.stat(dest)?.kind === "directory")
        fail(`destination file ${dest} is a directory`);
    }
    return { type, attrs, ...(dest === "" ? {} : { dest }) };
  });
}

function checkDirectory(type: string, dest: string, host: RequestHost): void {
  if (dest === "") fail(`dest is required for ${type} exporter`);
  if (dest === "-") fail(`dest cannot be stdout for ${type} exporter`);
  const stat = host.stat(dest);
  if (stat !== undefined && stat.kind !== "directory") fail(`destination directory ${dest} is a file`);
}
