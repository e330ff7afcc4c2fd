import { csvFields } from "@kiln/formats";
import { quote } from "@kiln/hcl";
import type { Grants } from "../fields/field.ts";
import { resolveSecret } from "../fields/request-checks.ts";
import type { RequestHost } from "../fields/request-draft.ts";
import { absolutePath, cleanPath, dirName, isRemoteUrl, joinPath, relativePath } from "../paths.ts";
import { cut, fail, requireBool, within } from "../problem.ts";
import type { BuildRequest } from "../request.ts";

/** Permissions, granted or asked for. `*` among paths stands for all. */
export interface Entitlements {
  readonly networkHost: boolean;
  readonly securityInsecure: boolean;
  /** `all`, or names. */
  readonly devices: "all" | readonly string[];
  readonly read: readonly string[];
  readonly write: readonly string[];
  readonly ssh: boolean;
  readonly localDelete: boolean;
}

const LOCAL_DELETE = "buildx.local.delete";

/** Reads the values of `--allow`. */
export function parseEntitlements(texts: readonly string[]): Entitlements {
  const out = {
    networkHost: false,
    securityInsecure: false,
    devices: [] as "all" | string[],
    read: [] as string[],
    write: [] as string[],
    ssh: false,
    localDelete: false,
  };
  for (const text of texts) {
    const [key, value = ""] = cut(text, "=");
    if (text === "network.host") out.networkHost = true;
    else if (text === "security.insecure") out.securityInsecure = true;
    else if (text === "ssh") out.ssh = true;
    else if (text === LOCAL_DELETE) out.localDelete = true;
    else if (key === "device") {
      if (value === "") out.devices = "all";
      else if (out.devices !== "all") out.devices = [...out.devices, deviceName(value)];
    } else if (key === "fs.read") out.read.push(value);
    else if (key === "fs.write") out.write.push(value);
    else if (key === "fs") {
      out.read.push(value);
      out.write.push(value);
    } else if (key === LOCAL_DELETE) fail(`${LOCAL_DELETE} does not accept a value`);
    else if (!["image", "image.push", "image.load"].includes(key))
      fail(`unknown entitlement key ${quote(key)}`);
  }
  return out;
}

function deviceName(value: string): string {
  return within(`failed to parse device entitlement ${quote(value)}`, () => csvFields(value))[0] ?? "";
}

/**
 * The permissions that builds need and that weren't granted. The working directory is always granted, as are
 * paths that the user's own overrides named.
 */
export function missingEntitlements(
  requests: Iterable<BuildRequest>,
  granted: Entitlements,
  grants: Grants,
  host: RequestHost,
): Entitlements {
  const missing = {
    networkHost: false,
    securityInsecure: false,
    devices: [] as "all" | string[],
    read: new Set<string>(),
    write: new Set<string>(),
    ssh: false,
    localDelete: false,
  };
  const readable = grantedPaths([...granted.read, ...grants.read, host.cwd], host);
  const writable = grantedPaths([...granted.write, ...grants.write, host.cwd], host);
  for (const request of requests) {
    for (const entitlement of request.entitlements) {
      const [key, rest = ""] = cut(entitlement, "=");
      if (entitlement === "network.host") missing.networkHost ||= !granted.networkHost && !grants.networkHost;
      else if (entitlement === "security.insecure") {
        missing.securityInsecure ||= !granted.securityInsecure && !grants.securityInsecure;
      } else if (key === "device") addDevice(missing, rest, granted);
    }
    missing.ssh ||= !granted.ssh && request.ssh.some((entry) => entry.paths.length === 0);
    missing.localDelete ||=
      !granted.localDelete &&
      request.outputs.some(
        (output) => output.type === "local" && localMode(output.attrs.get("mode")) === "delete",
      );
    for (const path of missingPaths(readPaths(request, host), readable, host)) missing.read.add(path);
    for (const path of missingPaths(writePaths(request), writable, host)) missing.write.add(path);
  }
  return { ...missing, read: [...missing.read].sort(), write: [...missing.write].sort() };
}

function addDevice(missing: { devices: "all" | string[] }, rest: string, granted: Entitlements): void {
  if (granted.devices === "all" || missing.devices === "all") return;
  if (rest === "") missing.devices = "all";
  else {
    const name = deviceName(rest);
    if (!granted.devices.includes(name) && !missing.devices.includes(name)) missing.devices.push(name);
  }
}

function localMode(mode = "copy"): string {
  return mode === "" || mode === "copy" || mode === "delete"
    ? mode
    : fail(`invalid local exporter mode ${quote(mode)}`);
}

function localPath(text: string): string | undefined {
  if (isRemoteUrl(text) || text.startsWith("target:") || text.startsWith("docker-image:")) return undefined;
  if (text.startsWith("oci-layout://")) {
    return text
      .slice("oci-layout://".length)
      .replace(/@[a-z0-9+._-]+:[0-9a-fA-F]{32,}$/, "")
      .replace(/:[\w][\w.-]{0,127}$/, "");
  }
  return text.startsWith("cwd://") ? text.slice("cwd://".length) : text;
}

function readPaths(request: BuildRequest, host: RequestHost): string[] {
  const inputs = request.remoteContext === undefined ? [request.context, request.dockerfile] : [];
  if (inputs.length === 0 && request.localDockerfile) inputs.push(request.dockerfile);
  const contexts = [...request.contexts].flatMap(([name, text]) =>
    request.remoteContexts.has(name) ? [] : [text],
  );
  const paths = [...inputs, ...contexts].flatMap((text) => localPath(text) ?? []);
  for (const cache of request.cacheFrom)
    if (cache.type === "local") paths.push(cache.attrs.get("src") ?? ".");
  for (const { id, src = "", env = "" } of request.secrets) {
    const resolved = resolveSecret({ id, src, env }, host);
    if (resolved.src !== "") paths.push(resolved.src);
  }
  return [...paths, ...request.ssh.flatMap((entry) => entry.paths)];
}

function writePaths(request: BuildRequest): string[] {
  const outputs = request.outputs.flatMap(({ dest }) => (dest === undefined || dest === "-" ? [] : [dest]));
  const caches = request.cacheTo.flatMap((cache) =>
    cache.type === "local" ? [cache.attrs.get("dest") ?? "."] : [],
  );
  return [...outputs, ...caches];
}

/** The real path of the deepest existing part, and what follows it. */
function existingPath(path: string, host: RequestHost): readonly [existing: string, rest: string] {
  let rest = "";
  for (let at = absolutePath(path, host.cwd); ; at = dirName(at)) {
    const real = host.realPath(at);
    if (real !== undefined || at === "/") return [real ?? "/", rest];
    rest = joinPath(at.slice(at.lastIndexOf("/") + 1), rest);
    if (dirName(at) === at) return [at, rest];
  }
}

function grantedPaths(paths: readonly string[], host: RequestHost): "all" | string[] {
  if (paths.includes("*")) return "all";
  return paths.map((path) => joinPath(...existingPath(path, host)));
}

function isWithin(path: string, parent: string): boolean {
  return path === parent || parent === "/" || path.startsWith(`${cleanPath(parent)}/`);
}

function missingPaths(
  paths: readonly string[],
  granted: "all" | readonly string[],
  host: RequestHost,
): string[] {
  if (granted === "all") return [];
  const existing = [...new Set(paths.map((path) => existingPath(path, host)[0]))].sort(
    (a, b) => a.length - b.length,
  );
  const roots: string[] = [];
  for (const path of existing) if (!roots.some((root) => isWithin(path, root))) roots.push(path);
  return roots.filter((path) => !granted.some((parent) => isWithin(path, parent)));
}

/** How to ask the user for what is missing. */
export interface EntitlementPrompt {
  /** ` - Read access to path x`; those that have to do with files come last. */
  readonly lines: readonly string[];
  /** `--allow=…` flags that grant all. */
  readonly flags: readonly string[];
  /** What stops the build unless it is granted: `fs` can be switched off. */
  readonly required: { readonly always: readonly string[]; readonly fs: readonly string[] };
  /** The checks of files apply (`BUILDX_BAKE_ENTITLEMENTS_FS`, `BAKE_ALLOW_REMOTE_FS_ACCESS`). */
  readonly fsEnabled: boolean;
  /** The environment says whether they apply. */
  readonly fsDecided: boolean;
}

/** Words for missing permissions; `undefined` when nothing is missing. */
export function promptFor(
  missing: Entitlements,
  host: RequestHost,
  remote: boolean,
): EntitlementPrompt | undefined {
  const always: [line: string, flag: string][] = [];
  if (missing.networkHost) {
    always.push([" - Running build containers that can access host network", "network.host"]);
  }
  if (missing.securityInsecure) {
    always.push([" - Running privileged containers that can make system changes", "security.insecure"]);
  }
  if (missing.devices === "all") always.push([" - Access to CDI devices", "device"]);
  else for (const name of missing.devices) always.push([` - Access to device ${name}`, `device=${name}`]);
  if (missing.localDelete) {
    always.push([" - Deleting stale files from local output destinations", LOCAL_DELETE]);
  }
  const fs = filePrompts(missing, host);
  if (always.length + fs.length === 0) return undefined;
  const flag = ([, name]: readonly [string, string]): string => `--allow=${name}`;
  return {
    lines: [...always, ...fs].map(([line]) => line),
    flags: [...always, ...fs].map(flag),
    required: { always: always.map(flag), fs: fs.map(flag) },
    ...fsSwitch(host, remote),
  };
}

function filePrompts(missing: Entitlements, host: RequestHost): [line: string, flag: string][] {
  const cwd = host.realPath(host.cwd) ?? host.cwd;
  const show = (path: string): string => {
    const relative = relativePath(cwd, path);
    return relative.startsWith("../..") ? path : relative;
  };
  const both = missing.read.filter((path) => missing.write.includes(path));
  const out: [string, string][] = [];
  if (missing.ssh) out.push([" - Forwarding default SSH agent socket", "ssh"]);
  for (const path of both) out.push([` - Read and write access to path ${show(path)}`, `fs=${show(path)}`]);
  for (const path of missing.read) {
    if (!both.includes(path)) out.push([` - Read access to path ${show(path)}`, `fs.read=${show(path)}`]);
  }
  for (const path of missing.write) {
    if (!both.includes(path)) out.push([` - Write access to path ${show(path)}`, `fs.write=${show(path)}`]);
  }
  return out;
}

function fsSwitch(
  host: RequestHost,
  remote: boolean,
): { readonly fsEnabled: boolean; readonly fsDecided: boolean } {
  const read = (name: string): boolean | undefined => {
    const text = host.env(name);
    if (text === undefined) return undefined;
    return within(`failed to parse ${name} value ${quote(text)}`, () => requireBool(text));
  };
  const forced = read("BUILDX_BAKE_ENTITLEMENTS_FS");
  const open = remote && read("BAKE_ALLOW_REMOTE_FS_ACCESS") === true;
  return { fsEnabled: forced ?? !open, fsDecided: forced !== undefined };
}
