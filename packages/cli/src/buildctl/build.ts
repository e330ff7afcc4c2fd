/** `buildctl build`. */
import { appendFileSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { create, fromBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema, OpMetadataSchema } from "@kiln/api/pb";
import { BuildError, errorMessage } from "@kiln/base";
import {
  createSession,
  OciIndex,
  openFileSink,
  prepareLocalCaches,
  type SolveResult,
  streamSink,
  type TypedAttrs,
} from "@kiln/client";
import { ConfigDir, RegistryLogins, readDockerConfig } from "@kiln/driver";
import { csvFields, newId } from "@kiln/formats";
import { type SolveStatus, statusJson } from "@kiln/progress";
import { type BlobStore, DirBlobStore } from "@kiln/session";
import {
  type Attachable,
  AuthProvider,
  asRoot,
  ContentProvider,
  FileSendTarget,
  FileSyncProvider,
  SecretsProvider,
  type SendTarget,
  type SshAgentConfig,
  SshProvider,
} from "@kiln/session/client";
import { decodeResponse, writeMetadataFile } from "../build/metadata.ts";
import { isFalse } from "../build/outputs.ts";
import { checkEntitlement, parseSecret } from "../build/parse-options.ts";
import { prepareSecrets } from "../build/secrets.ts";
import { readSourcePolicyFile } from "../build/source-policy.ts";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { type FlagSpec, parseGoBool, usageError } from "../command/flags.ts";
import { Printer } from "../printer.ts";
import { connect } from "./connect.ts";

const list = (name: string, usage: string, short?: string): FlagSpec => ({
  name,
  kind: "list",
  typeName: "string",
  usage,
  ...(short === undefined ? {} : { short }),
});
const text = (name: string, usage: string): FlagSpec => ({ name, kind: "string", usage });

const MAX_DEFINITION_BYTES = 64 << 20;

/** The command. */
export const buildCommand: CommandBody = {
  usage: "[options]",
  minArgs: 0,
  maxArgs: 0,
  flags: [
    list(
      "output",
      "Define exports for build result, e.g. --output type=image,name=docker.io/username/image,push=true",
      "o",
    ),
    {
      name: "progress",
      kind: "string",
      defaultValue: "auto",
      usage: "Set type of progress (auto, plain, tty, rawjson). Use plain to show container output",
    },
    text("trace", "Path to trace file. Defaults to no tracing."),
    list("local", "Allow build access to the local directory"),
    list("oci-layout", "Allow build access to the local OCI layout"),
    text("frontend", "Define frontend used for build"),
    list("opt", "Define custom options for frontend, e.g. --opt target=foo --opt build-arg:foo=bar"),
    { name: "no-cache", kind: "bool", usage: "Disable cache for all the vertices" },
    list(
      "export-cache",
      "Export build cache, e.g. --export-cache type=registry,ref=example.com/foo/bar, or --export-cache type=local,dest=path/to/dir",
    ),
    list(
      "import-cache",
      "Import build cache, e.g. --import-cache type=registry,ref=example.com/foo/bar, or --import-cache type=local,src=path/to/dir",
    ),
    list("secret", "Secret value exposed to the build. Format id=secretname,src=filepath"),
    list("allow", "Allow extra privileged entitlement, e.g. network.host, security.insecure, device"),
    list(
      "ssh",
      "Allow forwarding SSH agent or a raw Unix socket to the builder. Format default|<id>[=<socket>[,raw=false]|<key>[,<key>]]",
    ),
    text("metadata-file", "Output build metadata (e.g., image digest) to a file as JSON"),
    text("source-policy-file", "Read source policy file from a JSON file"),
    { name: "proxy-network", kind: "bool", usage: "Run build with proxy network enforcement" },
    text("ref-file", "Write build ref to a file"),
    list(
      "registry-auth-tlscontext",
      "Overwrite TLS configuration when authenticating with registries, e.g. --registry-auth-tlscontext host=https://myserver:2376,insecure=false,ca=/path/to/my/ca.crt,cert=/path/to/my/cert.crt,key=/path/to/my/key.crt",
    ),
    text(
      "debug-json-cache-metrics",
      "Where to output json cache metrics, use 'stdout' or 'stderr' for standard (error) output.",
    ),
  ],
  run: runBuild,
};

async function runBuild(ctx: CommandContext): Promise<number> {
  const { flags, terminal } = ctx;
  for (const name of flags.list("allow")) checkEntitlement(name);
  refuse(ctx);
  const outputs = flags.list("output").map((value) => parseOutput(value, terminal.stdout.isTTY === true));
  const caches = await prepareLocalCaches(
    {
      exports: flags.list("export-cache").map((value) => parseCache(value, "export", terminal.env)),
      imports: flags.list("import-cache").map((value) => parseCache(value, "import", terminal.env)),
    },
    (message) => terminal.stderr.write(`level=warning msg=${JSON.stringify(message)}\n`),
  );
  const attrs = parseOptions(flags.list("opt"), terminal.env);
  const frontend = flags.string("frontend");
  const definition = frontend === "" ? await readDefinition(ctx) : undefined;
  if (frontend !== "" && flags.bool("no-cache")) attrs["no-cache"] = "";
  const ref = newId();
  const refFile = flags.string("ref-file");
  const stores = new Map<string, BlobStore>(caches.stores);
  const session = createSession(attachables(ctx, outputs, stores));
  const policyFile = flags.string("source-policy-file");
  await using client = await connect(ctx);
  const printer = new Printer({
    mode: flags.string("progress"),
    output: terminal.stderr,
    env: terminal.env,
    debug: ctx.debug,
  });
  const trace = flags.string("trace");
  const onStatus = (status: SolveStatus): void => {
    printer.update(status);
    if (trace !== "") appendFileSync(trace, `${statusJson(status)}\n`, { mode: 0o600 });
  };
  let result: SolveResult;
  try {
    result = await client.solve({
      ref,
      drive: (gateway) =>
        gateway.solve({
          Frontend: frontend,
          FrontendOpt: withRequestCaps(attrs),
          CacheImports: caches.imports.map(({ type, attrs: own }) => ({ Type: type, Attrs: { ...own } })),
          ...(definition === undefined ? {} : { Definition: definition }),
        }),
      traceParent: ctx.terminal.env.TRACEPARENT,
      frontendAttrs: attrs,
      exporters: outputs.map(({ type, attrs: own }) => ({ type, attrs: own })),
      cacheImports: caches.imports,
      cacheExports: caches.exports,
      entitlements: flags.list("allow"),
      proxyNetwork: flags.bool("proxy-network"),
      session,
      onStatus,
      signal: ctx.signal,
      ...(policyFile === "" ? {} : { sourcePolicy: readSourcePolicyFile(policyFile) }),
    });
    await caches.finish(result.exporterResponse);
    finishLayouts(outputs, result);
  } finally {
    printer.end();
    if (refFile !== "") writeWhole(refFile, ref);
  }
  const metadataFile = flags.string("metadata-file");
  if (metadataFile !== "") writeMetadataFile(metadataFile, decodeResponse(result.exporterResponse));
  return 0;
}

/** Refuses, by name, what isn't there yet. */
function refuse(ctx: CommandContext): void {
  for (const name of ["registry-auth-tlscontext", "debug-json-cache-metrics"]) {
    if (ctx.flags.changed(name))
      throw new BuildError("unimplemented", `--${name} isn't supported by kiln yet`);
  }
}

function withRequestCaps(attrs: Readonly<Record<string, string>>): Record<string, string> {
  if (attrs.requestid === undefined || attrs["frontend.caps"] !== undefined) return { ...attrs };
  return { ...attrs, "frontend.caps": "moby.buildkit.frontend.subrequests" };
}

interface Output {
  readonly type: string;
  readonly attrs: Record<string, string>;
  readonly target:
    | { readonly kind: "none" | "stdout" }
    | { readonly kind: "dir" | "file" | "layout"; readonly path: string };
}

function parsePairs(text: string): { type: string; attrs: Record<string, string> } {
  let type = "";
  const attrs: Record<string, string> = {};
  for (const field of csvFields(text)) {
    const equals = field.indexOf("=");
    if (equals < 0) throw usageError(`invalid value ${field}`);
    const key = field.slice(0, equals).toLowerCase();
    if (key === "type") type = field.slice(equals + 1);
    else attrs[key] = field.slice(equals + 1);
  }
  return { type, attrs };
}

function parseOutput(value: string, stdoutIsTerminal: boolean): Output {
  const { type, attrs } = parsePairs(value);
  if (type === "") throw usageError("--output requires type=<type>");
  if (attrs.output !== undefined) {
    throw usageError(`output=${attrs.output} not supported for --output, you meant dest=${attrs.output}?`);
  }
  const invalid = (message: string): BuildError => usageError(`invalid output option: output: ${message}`);
  const { dest = "", ...rest } = attrs;
  const isArchive = type === "tar" || ((type === "oci" || type === "docker") && !isFalse(attrs.tar));
  const isDir = type === "local" || ((type === "oci" || type === "docker") && !isArchive);
  if (isDir) {
    if (dest === "") throw invalid(`output directory is required for ${type} exporter`);
    return { type, attrs: rest, target: { kind: type === "local" ? "dir" : "layout", path: dest } };
  }
  if (!isArchive) {
    if (dest !== "") throw invalid(`output ${dest} is not supported by ${type} exporter`);
    return { type, attrs, target: { kind: "none" } };
  }
  if (dest !== "" && dest !== "-") {
    if (statSync(dest, { throwIfNoEntry: false })?.isDirectory())
      throw invalid("destination file is a directory");
    return { type, attrs: rest, target: { kind: "file", path: dest } };
  }
  if (stdoutIsTerminal) {
    throw invalid(`output file is required for ${type} exporter. refusing to write to console`);
  }
  return { type, attrs: rest, target: { kind: "stdout" } };
}

function parseCache(value: string, way: "export" | "import", env: NodeJS.ProcessEnv): TypedAttrs {
  if (!value.includes("type=")) {
    return { type: "registry", attrs: { ...(way === "export" ? { mode: "min" } : {}), ref: value } };
  }
  const { type, attrs } = parsePairs(value);
  if (type === "") throw usageError(`--${way}-cache requires type=<type>`);
  if (way === "export") attrs.mode ??= "min";
  return { type, attrs: type === "gha" ? withGithub(attrs, env) : attrs };
}

function withGithub(attrs: Record<string, string>, env: NodeJS.ProcessEnv): Record<string, string> {
  const version =
    attrs.version ?? (/^(1|t|T|TRUE|true|True)$/.test(env.ACTIONS_CACHE_SERVICE_V2 ?? "") ? "2" : "");
  if (version === "2" && env.ACTIONS_RESULTS_URL) attrs.url_v2 ??= env.ACTIONS_RESULTS_URL;
  const url = env.ACTIONS_CACHE_URL ?? env.ACTIONS_RESULTS_URL;
  if (url) attrs.url ??= url;
  if (!attrs.url && !attrs.url_v2) throw usageError("cache with type gha requires url parameter to be set");
  if (!attrs.token && !env.ACTIONS_RUNTIME_TOKEN) {
    throw usageError("cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN");
  }
  attrs.token ??= env.ACTIONS_RUNTIME_TOKEN as string;
  return attrs;
}

function parseOptions(values: readonly string[], env: NodeJS.ProcessEnv): Record<string, string> {
  const attrs: Record<string, string> = {};
  if (env.SOURCE_DATE_EPOCH !== undefined) attrs["build-arg:SOURCE_DATE_EPOCH"] = env.SOURCE_DATE_EPOCH;
  for (const value of values) {
    const equals = value.indexOf("=");
    if (equals >= 0) {
      attrs[value.slice(0, equals)] = value.slice(equals + 1);
      continue;
    }
    const name = /^build-arg:(.+)$/.exec(value)?.[1];
    if (name === undefined) throw usageError(`invalid opt: invalid value: ${value}`);
    if (env[name] !== undefined) attrs[value] = env[name];
  }
  return attrs;
}

function parseMapping(values: readonly string[], what: string): Map<string, string> {
  return new Map(
    values.map((value) => {
      const equals = value.indexOf("=");
      if (equals < 0) throw usageError(`invalid ${what}: invalid value: ${value}`);
      return [value.slice(0, equals), value.slice(equals + 1)];
    }),
  );
}

function parseSshAgent(value: string): SshAgentConfig {
  const equals = value.indexOf("=");
  if (equals < 0) return { id: value, paths: [] };
  const id = value.slice(0, equals);
  let raw = false;
  const paths = value
    .slice(equals + 1)
    .split(",")
    .filter((part) => {
      if (!part.startsWith("raw=")) return true;
      raw = parseGoBool(part.slice(4));
      return false;
    });
  if (raw && paths.length !== 1) {
    throw usageError(`raw mode must supply exactly one socket path for ${JSON.stringify(id)}`);
  }
  return { id, paths, raw };
}

function attachables(
  ctx: CommandContext,
  outputs: readonly Output[],
  stores: Map<string, BlobStore>,
): Attachable[] {
  const { flags, terminal } = ctx;
  const dockerConfig = readDockerConfig(terminal.env);
  const logins = new RegistryLogins(dockerConfig, ConfigDir.fromEnv(terminal.env).path, terminal.env);
  const out: Attachable[] = [
    new AuthProvider({ login: (host, scopes) => logins.find(host, scopes), seedDir: dockerConfig.directory }),
  ];
  const ssh = flags.list("ssh").map(parseSshAgent);
  if (ssh.length > 0) out.push(new SshProvider(ssh, terminal.env));
  const secrets = prepareSecrets(flags.list("secret").map(parseSecret), terminal.env);
  if (secrets.size > 0) out.push(new SecretsProvider((id) => secrets.get(id)?.()));
  const dirs = parseMapping(flags.list("local"), "local");
  for (const dir of dirs.values()) {
    const kind = statSync(dir, { throwIfNoEntry: false });
    if (!kind?.isDirectory()) {
      throw usageError(`invalid local: ${dir}: ${kind ? "not a directory" : "no such file or directory"}`);
    }
  }
  if (dirs.size > 0) {
    out.push(new FileSyncProvider(new Map([...dirs].map(([name, dir]) => [name, { dir, map: asRoot }]))));
  }
  for (const [id, path] of parseMapping(flags.list("oci-layout"), "oci-layout")) {
    stores.set(`oci:${id}`, new DirBlobStore(path));
  }
  const targets: [number, SendTarget][] = [];
  for (const [index, { target, attrs }] of outputs.entries()) {
    if (target.kind === "stdout") {
      targets.push([index, { kind: "file", open: () => Promise.resolve(streamSink(terminal.stdout)) }]);
    } else if (target.kind === "file") {
      targets.push([index, { kind: "file", open: () => openFileSink(target.path) }]);
    } else if (target.kind === "dir") {
      targets.push([
        index,
        { kind: "dir", dir: target.path, mode: attrs.mode === "delete" ? "delete" : "copy" },
      ]);
    } else if (target.kind === "layout") {
      stores.set("export", new DirBlobStore(target.path, { writable: true }));
    }
  }
  if (targets.length > 0) out.push(new FileSendTarget(targets));
  if (stores.size > 0) out.push(new ContentProvider(stores));
  return out;
}

function finishLayouts(outputs: readonly Output[], result: SolveResult): void {
  const encoded = result.exporterResponse.get("containerimage.descriptor");
  if (encoded === undefined) return;
  const descriptor = JSON.parse(Buffer.from(encoded, "base64").toString()) as {
    digest: string;
    size: number;
  };
  const names = result.exporterResponse.get("image.name")?.split(",").filter(Boolean) ?? [];
  for (const { target } of outputs) {
    if (target.kind !== "layout") continue;
    new OciIndex(target.path).put(
      descriptor,
      names.length > 0 ? names.map((image) => ({ image })) : [{ tag: "latest" }],
    );
  }
}

async function readDefinition(ctx: CommandContext): Promise<Definition> {
  const { stdin } = ctx.terminal;
  if (stdin.isTTY) throw usageError("please specify --frontend or pipe LLB definition to stdin");
  const definition = await readLlb(stdin);
  if (definition.def.length === 0) {
    throw usageError("empty definition sent to build. Specify --frontend instead?");
  }
  if (!ctx.flags.bool("no-cache")) return definition;
  const { sha256 } = await import("@kiln/oci");
  for (const op of definition.def) {
    const digest = sha256(op);
    const metadata = definition.metadata[digest] ?? create(OpMetadataSchema);
    metadata.ignoreCache = true;
    definition.metadata[digest] = metadata;
  }
  return definition;
}

/** Reads a marshalled definition. @throws BuildError for what is none. */
export async function readLlb(stream: AsyncIterable<Uint8Array | string>): Promise<Definition> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    const part = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    size += part.length;
    if (size > MAX_DEFINITION_BYTES)
      throw new BuildError("resource_exhausted", "the LLB definition is too large");
    parts.push(part);
  }
  try {
    return fromBinary(DefinitionSchema, Buffer.concat(parts));
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to read LLB: ${errorMessage(error)}`, { cause: error });
  }
}

function writeWhole(path: string, content: string): void {
  writeFileSync(`${path}.tmp`, content);
  renameSync(`${path}.tmp`, path);
}

/** A definition in a file, or on standard input for `-` and no name. */
export async function loadLlb(
  path: string | undefined,
  stdin: AsyncIterable<Uint8Array | string>,
): Promise<Definition> {
  if (path === undefined || path === "-") return readLlb(stdin);
  const data = readFileSync(path);
  return readLlb(
    (async function* () {
      yield data;
    })(),
  );
}
