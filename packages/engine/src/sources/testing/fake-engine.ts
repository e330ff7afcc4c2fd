import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import type { Descriptor, Digest } from "@kiln/oci";
import type {
  BlobRefOptions,
  ContentStore,
  ImmutableRef,
  LeaseStore,
  MutableRef,
  RefManager,
  RefMetadata,
  RefOptions,
} from "@kiln/store";
import type { OpContext } from "../../op-context.ts";
import type { SourceSessions } from "../source-sessions.ts";

/** A record of {@link FakeRefs}. */
export interface FakeRecord {
  readonly id: string;
  readonly dir: string;
  readonly values: Map<string, { readonly value: string; readonly index: string | undefined }>;
  readonly options: RefOptions;
  readonly layer:
    | { readonly desc: Descriptor; readonly parent: string | undefined; readonly blob: BlobRefOptions }
    | undefined;
  handles: number;
  recordType: string;
}

/** Trees as plain folders, for tests of sources. Only what sources use works; the rest throws. */
export class FakeRefs implements Disposable {
  readonly records = new Map<string, FakeRecord>();
  readonly #root = mkdtempSync(join(tmpdir(), "kiln-fake-refs-"));

  /** As what the sources take. */
  get manager(): RefManager {
    const manager: Partial<RefManager> = {
      newMutable: (_parent, opts) => Promise.resolve(this.#mutable(this.#record(opts, undefined))),
      getMutable: (id) => {
        const record = this.records.get(id);
        if (!record) return Promise.reject(new BuildError("not_found", id));
        return Promise.resolve(this.#mutable(record));
      },
      get: (id) => {
        const record = this.records.get(id);
        if (!record) throw new BuildError("not_found", id);
        return this.#immutable(record);
      },
      getByBlob: (desc, parent, blob) =>
        Promise.resolve(this.#immutable(this.#record(blob, { desc, parent: parent?.id, blob }))),
      search: (index) =>
        [...this.records.values()]
          .filter((r) => [...r.values.values()].some((v) => v.index === index))
          .map((r) => r.id),
      metadataOf: (id) => {
        const record = this.records.get(id);
        return record && metadata(record);
      },
      observe: () => undefined,
      onRemoved: () => ({ [Symbol.dispose]: () => undefined }),
    };
    return manager as RefManager;
  }

  /** Folder of a ref. */
  dir(ref: { readonly id: string } | undefined): string {
    return this.records.get(ref?.id ?? "")!.dir;
  }

  /** Number of handles that nobody has released. */
  get held(): number {
    return [...this.records.values()].reduce((sum, record) => sum + record.handles, 0);
  }

  #record(options: RefOptions, layer: FakeRecord["layer"]): FakeRecord {
    const id = `ref${this.records.size}`;
    const dir = mkdtempSync(join(this.#root, `${id}-`));
    const record = {
      id,
      dir,
      values: new Map(),
      options,
      layer,
      handles: 0,
      recordType: options.recordType ?? "regular",
    };
    this.records.set(id, record);
    return record;
  }

  #handle(record: FakeRecord) {
    record.handles++;
    let held = true;
    const release = (): Promise<void> => {
      if (held) record.handles--;
      held = false;
      return Promise.resolve();
    };
    const mountable = {
      mounts: [{ type: "bind", source: record.dir, options: ["rbind"] }],
      release: () => Promise.resolve(),
    };
    return {
      id: record.id,
      metadata: metadata(record),
      setCachePolicy: () => undefined,
      setRecordType: (type: string) => {
        record.recordType = type;
      },
      mount: () => Promise.resolve({ ...mountable, [Symbol.asyncDispose]: mountable.release }),
      release,
      [Symbol.asyncDispose]: release,
    };
  }

  #immutable(record: FakeRecord): ImmutableRef {
    return { kind: "immutable", ...this.#handle(record) } as unknown as ImmutableRef;
  }

  #mutable(record: FakeRecord): MutableRef {
    const handle = this.#handle(record);
    const commit = async (): Promise<ImmutableRef> => {
      await handle.release();
      return this.#immutable(record);
    };
    return { kind: "mutable", commit, ...handle } as unknown as MutableRef;
  }

  [Symbol.dispose](): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

function metadata(record: FakeRecord): RefMetadata {
  return {
    getString: (key) => record.values.get(key)?.value,
    setString: (key, value, index) => void record.values.set(key, { value, index }),
    delete: (key) => void record.values.delete(key),
    getBytes: () => undefined,
    setBytes: () => undefined,
  };
}

/** Blobs in memory. */
export function fakeContent(): {
  readonly content: ContentStore;
  readonly leases: LeaseStore;
  readonly blobs: Map<string, Buffer>;
} {
  const blobs = new Map<string, Buffer>();
  const labels = new Map<string, Map<string, string>>();
  const content: Partial<ContentStore> = {
    has: (digest) => blobs.has(digest),
    info: (digest) => {
      const blob = blobs.get(digest);
      if (!blob) throw new BuildError("not_found", digest);
      return {
        digest: digest as Digest,
        sizeBytes: blob.length,
        createdAt: 0,
        labels: labels.get(digest) ?? new Map(),
      };
    },
    async write(source, expected) {
      const chunks: Uint8Array[] = [];
      if (source instanceof Uint8Array) chunks.push(source);
      else for await (const chunk of source) chunks.push(chunk);
      const data = Buffer.concat(chunks);
      const digest = `sha256:${createHash("sha256").update(data).digest("hex")}` as const;
      if (expected?.digest !== undefined && expected.digest !== digest)
        throw new BuildError("data_loss", "digest");
      blobs.set(digest, data);
      return { mediaType: "", digest, size: data.length };
    },
    readAll: (digest) => Promise.resolve(blobs.get(digest)!),
    setLabels: (digest, values) => {
      const known = labels.get(digest) ?? new Map<string, string>();
      for (const [key, value] of Object.entries(values)) if (value !== undefined) known.set(key, value);
      labels.set(digest, known);
    },
  };
  const leases: Partial<LeaseStore> = {
    create: (id) => ({ id, createdAt: 0, expiresAt: undefined, labels: new Map() }),
    get: () => undefined,
    add: () => undefined,
    list: () => [],
  };
  return { content: content as ContentStore, leases: leases as LeaseStore, blobs };
}

/** An op's context that runs nowhere; `finish` runs its clean-ups. */
export function fakeContext(values: Readonly<Record<string, unknown>> = {}): {
  readonly ctx: OpContext;
  readonly log: () => string;
  readonly statuses: string[];
  finish(): Promise<void>;
} {
  const cleanups: (() => void | Promise<void>)[] = [];
  const logged: Buffer[] = [];
  const statuses: string[] = [];
  const left = new Map<string, unknown[]>();
  const ctx: Partial<OpContext> = {
    signal: new AbortController().signal,
    vertexDigest: "sha256:0",
    sessions: { ids: () => ["s1"] },
    progress: {
      resume: () => () => undefined,
      status: (update) => void statuses.push(update.id),
      log: (_stream, data) => void logged.push(Buffer.from(data)),
      warning: () => undefined,
    },
    resolverCache: {
      lock: (key) => {
        const found = left.get(key) ?? [];
        left.set(key, found);
        return Promise.resolve({
          values: [...found],
          release: (value?: unknown) => {
            if (value !== undefined) found.push(value);
          },
        });
      },
    },
    cleanup: (fn) => void cleanups.push(fn),
    jobValues: (key) => (key in values ? [values[key]] : []),
  };
  return {
    ctx: ctx as OpContext,
    log: () => Buffer.concat(logged).toString(),
    statuses,
    async finish() {
      for (const cleanup of cleanups.splice(0)) await cleanup();
    },
  };
}

/** Sessions that have what they are given, and nothing else. */
export function fakeSessions(has: {
  readonly secrets?: Readonly<Record<string, string>>;
  readonly blobs?: ReadonlyMap<string, Uint8Array>;
  readonly uploads?: Readonly<Record<string, string>>;
}): SourceSessions {
  return {
    credentials: () => Promise.resolve(undefined),
    fetchToken: () => Promise.resolve(undefined),
    secret: (_ids, id) => {
      const value = has.secrets?.[id];
      return Promise.resolve(value === undefined ? undefined : Buffer.from(value));
    },
    content: (_ids, storeId) => {
      if (storeId !== "store") return Promise.reject(new BuildError("not_found", `unknown store ${storeId}`));
      return Promise.resolve({
        size: (digest) => {
          const blob = has.blobs?.get(digest);
          return blob ? Promise.resolve(blob.length) : Promise.reject(new BuildError("not_found", digest));
        },
        async *read(digest) {
          yield has.blobs!.get(digest)!;
        },
      });
    },
    async upload(_ids, url) {
      const text = has.uploads?.[url.pathname];
      if (text === undefined) throw new BuildError("not_found", url.pathname);
      return (async function* () {
        yield Buffer.from(text);
      })();
    },
    sshSocket: (_ids, id) =>
      Promise.reject(new BuildError("not_found", `no SSH key "${id}" forwarded from the client`)),
  };
}
