import { createHash } from "node:crypto";
import { BuildError, isBuildError } from "@kiln/base";
import { PatternMatcher } from "@kiln/patterns";
import { type SessionCaller, type SessionManager, syncDirectory } from "@kiln/session";
import type { Differ } from "@kiln/session/fsutil";
import type { ImmutableRef, MutableRef, RefManager } from "@kiln/store";
import { localMount } from "@kiln/sys";
import type { Capture } from "../attestations/provenance/capture.ts";
import { goJsonText } from "../cache-digest/go-json.ts";
import type { ContentHasher } from "../content-hash/content-hasher.ts";
import type { OpContext } from "../op-context.ts";
import type { Source, SourceCacheKey, SourceInstance, SourceRequest } from "./source.ts";
import { invalid } from "./source-attrs.ts";

/** What local sources need. */
export interface LocalSourceHost {
  readonly refs: RefManager;
  readonly sessions: SessionManager;
  readonly hasher: ContentHasher;
}

interface LocalIdentifier {
  readonly name: string;
  /** "" takes any session of the build. */
  readonly sessionId: string;
  readonly includePatterns: readonly string[] | undefined;
  readonly excludePatterns: readonly string[] | undefined;
  readonly followPaths: readonly string[] | undefined;
  readonly sharedKeyHint: string;
  readonly differ: Differ;
  readonly metadataOnly: boolean;
  readonly metadataExceptions: readonly string[] | undefined;
}

const SHARED_KEY = "local.sharedKey";
const SESSION_WAIT_MS = 5_000;
/** Progress is told at most this often. */
const PROGRESS_INTERVAL_MS = 100;

/** Directories of clients: `local://<name>` (buildkit.md §3.4). */
export class LocalSource implements Source {
  readonly schemes = ["local"];
  readonly #host: LocalSourceHost;

  constructor(host: LocalSourceHost) {
    this.#host = host;
  }

  resolve(request: SourceRequest): SourceInstance {
    return new LocalInstance(parseLocal(request), this.#host);
  }
}

function parseLocal({ identifier, attrs }: SourceRequest): LocalIdentifier {
  let name = identifier.slice("local://".length);
  let sessionId = attrs.get("local.session") ?? "";
  const colon = sessionId.indexOf(":");
  if (colon >= 0) {
    name = `${sessionId.slice(0, colon)}-${name}`;
    sessionId = sessionId.slice(colon + 1);
  }
  const transfer = attrs.get("local.metadatatransfer");
  if (transfer !== undefined && !/^(?:1|t|true|0|f|false)$/i.test(transfer)) {
    throw invalid(`invalid value for local.metadatatransfer ${JSON.stringify(transfer)}`);
  }
  return {
    name,
    sessionId,
    includePatterns: listAttr(attrs, "local.includepattern"),
    excludePatterns: listAttr(attrs, "local.excludepatterns"),
    followPaths: listAttr(attrs, "local.followpaths"),
    sharedKeyHint: attrs.get("local.sharedkeyhint") ?? "",
    differ: attrs.get("local.differ") === "none" ? "none" : "metadata",
    metadataOnly: transfer !== undefined && /^(?:1|t|true)$/i.test(transfer),
    metadataExceptions: listAttr(attrs, "local.metadatatransferexclude"),
  };
}

function listAttr(attrs: ReadonlyMap<string, string>, key: string): readonly string[] | undefined {
  const text = attrs.get(key);
  if (text === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalid(`${key} is not JSON`, error);
  }
  if (parsed === null) return undefined;
  if (!Array.isArray(parsed) || parsed.some((item) => typeof item !== "string")) {
    throw invalid(`${key} is not a list of texts`);
  }
  return parsed as string[];
}

class LocalInstance implements SourceInstance {
  readonly #id: LocalIdentifier;
  readonly #host: LocalSourceHost;

  constructor(id: LocalIdentifier, host: LocalSourceHost) {
    this.#id = id;
    this.#host = host;
  }

  async cacheKey(_index: number, ctx: OpContext): Promise<SourceCacheKey> {
    const id = this.#id;
    const sessionId = id.sessionId === "" ? ctx.sessions.ids()[0] : id.sessionId;
    if (sessionId === undefined || sessionId === "") {
      throw new BuildError("failed_precondition", "could not access local files without session");
    }
    const text = goJsonText({
      SessionID: sessionId,
      IncludePatterns: id.includePatterns ?? null,
      ExcludePatterns: id.excludePatterns ?? null,
      FollowPaths: id.followPaths ?? null,
      MetadataTransfer: id.metadataOnly ? true : undefined,
      MetadataExceptions: id.metadataExceptions?.length ? id.metadataExceptions : undefined,
    });
    const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`;
    return { key: `session:${id.name}:${digest}`, pin: digest, done: true };
  }

  capture(into: Capture): void {
    into.addLocal(this.#id.name);
  }

  async snapshot(ctx: OpContext): Promise<ImmutableRef> {
    const { sessions } = this.#host;
    const named = this.#id.sessionId;
    const caller = named === "" ? undefined : await this.#named(named, ctx);
    if (caller !== undefined) return await this.#sync(caller, ctx);
    return await sessions.any(ctx.sessions.ids(), (any) => this.#sync(any, ctx), { signal: ctx.signal });
  }

  /** The session that the source names, when it is there in time. */
  async #named(id: string, ctx: OpContext): Promise<SessionCaller | undefined> {
    const signal = AbortSignal.any([ctx.signal, AbortSignal.timeout(SESSION_WAIT_MS)]);
    try {
      return await this.#host.sessions.get(id, { signal });
    } catch (error) {
      ctx.signal.throwIfAborted();
      if (isBuildError(error)) return undefined;
      throw error;
    }
  }

  async #sync(caller: SessionCaller, ctx: OpContext): Promise<ImmutableRef> {
    const id = this.#id;
    const key = `${id.name}:${id.sharedKeyHint}:${caller.sharedKey}${id.metadataOnly ? ":metadata" : ""}`;
    const mutable = await this.#tree(key);
    const state = `local:${mutable.id}`;
    try {
      const changed = await this.#transfer(caller, mutable, ctx);
      await this.#noteChanges(mutable, changed, state, ctx);
      if (mutable.metadata.getString(SHARED_KEY) !== key) {
        mutable.metadata.setString(SHARED_KEY, key, `${SHARED_KEY}:${key}`);
      }
    } catch (error) {
      // what is there now is of no known state: the next transfer starts afresh
      try {
        mutable.setCachePolicy("default");
        await this.#host.hasher.forget(state);
      } finally {
        await mutable.release();
      }
      throw error;
    }
    const ref = await mutable.commit();
    await this.#host.hasher.alias(ref.id, state);
    return ref;
  }

  /** The tree of an earlier transfer under this key, or a new one. */
  async #tree(key: string): Promise<MutableRef> {
    const { refs } = this.#host;
    for (const id of refs.search(`${SHARED_KEY}:${key}`)) {
      try {
        return await refs.getMutable(id);
      } catch (error) {
        if (!isBuildError(error)) throw error;
      }
    }
    return await refs.newMutable(undefined, {
      cachePolicy: "retain",
      recordType: "source.local",
      description: `local source for ${this.#id.name}`,
    });
  }

  async #transfer(caller: SessionCaller, mutable: MutableRef, ctx: OpContext): Promise<string[]> {
    const id = this.#id;
    await using mountable = await mutable.mount(false, { signal: ctx.signal, session: ctx.sessions });
    using dir = localMount(mountable.mounts);
    const changed: string[] = [];
    const exceptions =
      id.metadataOnly && id.metadataExceptions?.length
        ? new PatternMatcher(id.metadataExceptions)
        : undefined;
    await syncDirectory(caller, dir.path, {
      name: id.name,
      include: id.includePatterns,
      exclude: id.excludePatterns,
      followPaths: id.followPaths,
      differ: id.differ,
      ...(id.metadataOnly
        ? { metadataOnly: (path: string) => exceptions?.matchesOrParentMatches(path) ?? false }
        : {}),
      onChange: (change) => changed.push(change.path),
      onProgress: transferProgress(ctx, `transferring ${id.name}:`),
      signal: ctx.signal,
    });
    return changed;
  }

  async #noteChanges(
    mutable: MutableRef,
    changed: readonly string[],
    state: string,
    ctx: OpContext,
  ): Promise<void> {
    await using mountable = await mutable.mount(true, { signal: ctx.signal, session: ctx.sessions });
    using dir = localMount(mountable.mounts);
    await this.#host.hasher.derive(state, state, dir.path, changed);
  }
}

/** Tells the progress of a transfer, not too often. */
export function transferProgress(ctx: OpContext, id: string): (sizeBytes: number, done: boolean) => void {
  const startedMs = Date.now();
  let toldMs = 0;
  ctx.progress.status({ id, name: "transferring", startedMs });
  return (sizeBytes, done) => {
    const now = Date.now();
    if (!done && now - toldMs < PROGRESS_INTERVAL_MS) return;
    toldMs = now;
    ctx.progress.status({
      id,
      name: "transferring",
      current: sizeBytes,
      startedMs,
      ...(done ? { completedMs: now } : {}),
    });
  };
}
