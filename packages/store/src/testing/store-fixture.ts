import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { type TarHeader, TarWriter } from "@kiln/archive";
import type { Descriptor, Digest } from "@kiln/oci";
import { localMount } from "@kiln/sys";
import {
  type ImmutableRef,
  type MutableRef,
  openStore,
  type RefContext,
  type Store,
  type StoreOptions,
} from "../index.ts";

/** A layer in memory. */
export interface TestLayer {
  readonly bytes: Buffer;
  readonly desc: Descriptor;
  readonly diffId: Digest;
}

export const ctx: RefContext = { signal: new AbortController().signal };

export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** A gzipped layer of these entries. */
export async function layerOf(
  ...entries: (Partial<TarHeader> & { name: string; content?: string })[]
): Promise<TestLayer> {
  const parts: Uint8Array[] = [];
  const writer = new TarWriter((chunk) => void parts.push(chunk));
  for (const { content, ...header } of entries) await writer.entry(header, content);
  await writer.finish();
  const tar = Buffer.concat(parts);
  const bytes = gzipSync(tar);
  const desc = {
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    digest: digestOf(bytes),
    size: bytes.length,
  };
  return { bytes, desc, diffId: digestOf(tar) };
}

/** A store in a temporary folder, with a registry of layers in memory. */
export class StoreFixture implements AsyncDisposable {
  readonly root = mkdtempSync(join(tmpdir(), "kiln-store"));
  readonly blobs = new Map<string, Uint8Array>();
  readonly fetched: string[] = [];
  readonly warnings: string[] = [];
  now = 1_700_000_000_000;
  store!: Store;

  static async open(opts: Partial<StoreOptions> = {}): Promise<StoreFixture> {
    const fixture = new StoreFixture();
    await fixture.reopen(opts);
    return fixture;
  }

  async reopen(opts: Partial<StoreOptions> = {}): Promise<void> {
    await this.store?.[Symbol.asyncDispose]();
    this.store = await openStore({
      root: this.root,
      clock: { now: () => this.now++ },
      fetchBlob: async (desc) => {
        this.fetched.push(desc.digest);
        const bytes = this.blobs.get(desc.digest);
        if (!bytes) throw new Error(`no blob ${desc.digest}`);
        return (async function* () {
          const step = Math.max(50, bytes.length >> 6);
          for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
        })();
      },
      onWarning: (message) => this.warnings.push(message),
      ...opts,
    });
  }

  /** A lazy record of a layer. */
  async pull(layer: TestLayer, parent?: ImmutableRef): Promise<ImmutableRef> {
    this.blobs.set(layer.desc.digest, layer.bytes);
    return await this.store.refs.getByBlob(layer.desc, parent, { diffId: layer.diffId, remotes: ["test"] });
  }

  /** A tree made by hand on top of another. */
  async build(parent: ImmutableRef | undefined, body: (dir: string) => void): Promise<ImmutableRef> {
    const mutable = await this.store.refs.newMutable(parent, {});
    await write(mutable, body);
    return await mutable.commit();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    rmSync(this.root, { recursive: true, force: true });
  }
}

export async function write(mutable: MutableRef, body: (dir: string) => void): Promise<void> {
  await using mounts = await mutable.mount(false, ctx);
  using dir = localMount(mounts.mounts);
  body(dir.path);
}

/** Files of a tree with their contents; directories end in a slash. */
export async function treeOf(ref: ImmutableRef | MutableRef): Promise<Record<string, string>> {
  await using mounts = await ref.mount(true, ctx);
  using dir = localMount(mounts.mounts, { forReading: true });
  const files: Record<string, string> = {};
  const visit = (path: string): void => {
    for (const name of readdirSync(path).sort()) {
      const full = join(path, name);
      const key = relative(dir.path, full);
      if (!statSync(full).isDirectory()) files[key] = readFileSync(full, "utf8");
      else {
        files[`${key}/`] = "";
        visit(full);
      }
    }
  };
  visit(dir.path);
  return files;
}
