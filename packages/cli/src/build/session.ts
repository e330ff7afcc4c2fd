/** What one build's session offers: its files, its secrets and credentials, and the places for its outputs. */

import type { SshOption } from "@kiln/bake";
import { BuildError } from "@kiln/base";
import {
  createSession,
  type PreparedCaches as LocalCaches,
  OciIndex,
  openFileSink,
  prepareLocalCaches,
  type SolveSession,
  streamSink,
  type TypedAttrs,
} from "@kiln/client";
import { asVertex, type DockerConfig, RegistryLogins } from "@kiln/driver";
import type { SolveStatus } from "@kiln/progress";
import { type BlobStore, DirBlobStore } from "@kiln/session";
import {
  type Attachable,
  AuthProvider,
  asRoot,
  ContentProvider,
  FileSendTarget,
  type FileSink,
  FileSyncProvider,
  SecretsProvider,
  type SendTarget,
  type SharedDir,
  SshProvider,
  UploadProvider,
} from "@kiln/session/client";
import { treeOfFiles } from "@kiln/session/fsutil";
import type { PreparedCaches } from "./caches.ts";
import type { DockerEngine } from "./docker-load.ts";
import type { BuildInputs } from "./inputs.ts";
import type { OutputTarget, PreparedOutput } from "./outputs.ts";
import type { SecretSources } from "./secrets.ts";

/** What a session is made of. */
export interface SessionParts {
  readonly inputs: BuildInputs;
  readonly outputs: readonly PreparedOutput[];
  readonly caches: PreparedCaches;
  readonly secrets: SecretSources;
  readonly ssh: readonly SshOption[];
  readonly sharedKey: string;
  readonly dockerConfig: DockerConfig;
  readonly configDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: NodeJS.WritableStream;
  readonly onStatus: (status: SolveStatus) => void;
  readonly warn: (message: string) => void;
}

/** A session and what belongs to its end. */
export interface BuildSession extends SolveSession {
  readonly cacheImports: readonly TypedAttrs[];
  readonly cacheExports: readonly TypedAttrs[];
  /** Completes what the build has written here. */
  finish(response: ReadonlyMap<string, string>): Promise<void>;
}

/** Puts a session together. */
export async function createBuildSession(parts: SessionParts): Promise<BuildSession> {
  const attachables: Attachable[] = [authProvider(parts)];
  const { inputs } = parts;
  const dirs = new Map<string, SharedDir>();
  for (const [name, dir] of inputs.dirs) {
    // Of a Dockerfile only the text matters.
    dirs.set(name, { dir, map: asRoot, plain: name === "dockerfile" });
  }
  for (const [name, files] of inputs.madeDirs) dirs.set(name, { dir: treeOfFiles(files), map: asRoot });
  if (dirs.size > 0) attachables.push(new FileSyncProvider(dirs));
  if (parts.secrets.size > 0) attachables.push(new SecretsProvider((id) => parts.secrets.get(id)?.()));
  attachables.push(new SshProvider(parts.ssh, parts.env));
  for (const [url, stream] of inputs.uploads) {
    const upload = new UploadProvider();
    inputs.attrs.set(url, upload.add(stream));
    attachables.push(upload);
  }
  const caches = await prepareLocalCaches(
    { imports: typedAttrs(parts.caches.from), exports: typedAttrs(parts.caches.to) },
    parts.warn,
  );
  const stores = new Map<string, BlobStore>(caches.stores);
  for (const [id, path] of inputs.ociStores) stores.set(`oci:${id}`, new DirBlobStore(path));
  const targets = await sendTargets(parts, stores);
  if (targets.length > 0) attachables.push(new FileSendTarget(targets));
  if (stores.size > 0) attachables.push(new ContentProvider(stores));
  const session = createSession(attachables, { sharedKey: parts.sharedKey });
  return {
    ...session,
    cacheImports: caches.imports,
    cacheExports: caches.exports,
    finish: (response) => finishSession(parts, caches, response),
  };
}

function typedAttrs(entries: PreparedCaches["from"]): TypedAttrs[] {
  return entries.map(({ type, attrs }) => ({ type, attrs: Object.fromEntries(attrs) }));
}

function authProvider(parts: SessionParts): AuthProvider {
  const logins = new RegistryLogins(parts.dockerConfig, parts.configDir, parts.env);
  return new AuthProvider({
    login: (host, scopes) => logins.find(host, scopes),
    seedDir: parts.dockerConfig.directory,
    onUse: (text) => {
      void asVertex(text, parts.onStatus, () => Promise.resolve());
    },
  });
}

async function sendTargets(
  parts: SessionParts,
  stores: Map<string, BlobStore>,
): Promise<[number, SendTarget][]> {
  const targets: [number, SendTarget][] = [];
  for (const [index, output] of parts.outputs.entries()) {
    const target = await sendTarget(output, parts, stores);
    if (target) targets.push([index, target]);
  }
  return targets;
}

async function sendTarget(
  output: PreparedOutput,
  parts: SessionParts,
  stores: Map<string, BlobStore>,
): Promise<SendTarget | undefined> {
  const { target } = output;
  switch (target.kind) {
    case "none":
      return undefined;
    case "directory":
      return { kind: "dir", dir: target.path, mode: target.mirrors ? "delete" : "copy" };
    case "layout":
      if (stores.has("export"))
        throw new BuildError("invalid_argument", 'oci store key "export" already exists');
      stores.set("export", new DirBlobStore(target.path, { writable: true }));
      return undefined;
    case "file":
      return { kind: "file", open: () => openFileSink(target.path) };
    case "stdout":
      return { kind: "file", open: () => Promise.resolve(streamSink(parts.stdout)) };
    case "docker":
      return dockerTarget(output, target, parts);
  }
}

/** Sends to a Docker Engine; one that keeps its images in containerd takes an OCI archive. */
async function dockerTarget(
  output: PreparedOutput,
  target: OutputTarget & { readonly kind: "docker" },
  parts: SessionParts,
): Promise<SendTarget> {
  const { connectDocker } = await import("./docker-load.ts");
  const engine = await connectDocker(target.context, { env: parts.env, dockerConfig: parts.dockerConfig });
  if (engine.takesOci) {
    output.type = "oci";
    output.attrs.set("prefer-image-digest", "true");
  } else if (output.needsManifestList) {
    throw new BuildError(
      "unimplemented",
      "docker exporter does not currently support exporting manifest lists",
    );
  }
  return { kind: "file", open: () => Promise.resolve(dockerSink(engine, parts.onStatus)) };
}

function dockerSink(engine: DockerEngine, onStatus: SessionParts["onStatus"]): FileSink {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const loaded = engine.load(readable, onStatus);
  loaded.catch((error: unknown) => writer.abort(error).catch(() => undefined));
  return {
    async write(data) {
      await Promise.race([writer.write(data), loaded.then(() => undefined)]);
    },
    async close() {
      await writer.close().catch(() => undefined);
      await loaded;
    },
    async abort(error) {
      await writer.abort(error).catch(() => undefined);
      await loaded.catch(() => undefined);
    },
  };
}

async function finishSession(
  parts: SessionParts,
  caches: LocalCaches,
  response: ReadonlyMap<string, string>,
): Promise<void> {
  await caches.finish(response);
  const layout = parts.outputs.find(({ target }) => target.kind === "layout")?.target;
  const encoded = response.get("containerimage.descriptor");
  if (layout?.kind !== "layout" || encoded === undefined) return;
  const descriptor = JSON.parse(Buffer.from(encoded, "base64").toString()) as {
    digest: string;
    size: number;
  };
  const names = response.get("image.name")?.split(",").filter(Boolean);
  new OciIndex(layout.path).put(
    descriptor,
    names && names.length > 0 ? names.map((image) => ({ image })) : [{ tag: "latest" }],
  );
}
