/** Bundles of build records (`.dockerbuild`): an OCI layout in a gzip'd tar, as Buildx and Docker Desktop have it. */
import { createHash } from "node:crypto";
import type { Writable } from "node:stream";
import { createGzip } from "node:zlib";
import type { BuildHistoryRecord, BuildResultInfo, Descriptor } from "@kiln/api/control";
import { TarWriter } from "@kiln/archive";
import { BuildError, wrapError } from "@kiln/base";
import type { BuildkitClient } from "@kiln/client";
import type { BuildPlace } from "@kiln/driver";
import { goJson } from "@kiln/formats";
import { isDigest } from "@kiln/oci";
import { historyRecord } from "../go-records.ts";
import { sanitizedTrace } from "./span-stubs.ts";

const RECORD_TYPE = "application/vnd.buildkit.historyrecord.v0";
const REAL_TYPE = "vnd.export-build.descriptor.mediatype";
const REFERENCE = "vnd.buildkit.history.reference";
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
const LAYOUT = '{"imageLayoutVersion":"1.0.0"}';
/** Of what a cache import was told, the rest may be secret. */
const SHOWN_IMPORT_ATTRS = ["scope", "ref"];

/** One record of a bundle, and what the user's machine knows of its build. */
export interface BundledRecord {
  readonly record: BuildHistoryRecord;
  readonly client: BuildkitClient;
  /** Platform of the node, for results that name none. */
  readonly defaultPlatform: string;
  readonly place: BuildPlace | undefined;
  /** The builds of one bake, when it was part of one. */
  readonly group: { readonly targets: readonly string[]; readonly refs: readonly string[] } | undefined;
}

interface Blob {
  readonly size: number;
  readonly content: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

interface OciDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: bigint | number;
  readonly annotations?: ReadonlyMap<string, string> | undefined;
}

/** Writes a bundle. What can't be had of a record fails it. */
export async function writeBundle(
  sink: (chunk: Uint8Array) => Promise<void>,
  records: readonly BundledRecord[],
  signal: AbortSignal,
): Promise<void> {
  const blobs = new Map<string, Blob>();
  const top = await addRecords(blobs, records, signal);
  const gzip = createGzip();
  const flowing = (async () => {
    for await (const chunk of gzip) await sink(chunk as Uint8Array);
  })();
  try {
    await writeLayout(gzip, blobs, top);
    gzip.end();
  } catch (error) {
    gzip.destroy(error as Error);
  }
  await flowing;
}

async function writeLayout(
  out: Writable,
  blobs: ReadonlyMap<string, Blob>,
  top: OciDescriptor,
): Promise<void> {
  const tar = new TarWriter(
    (chunk) =>
      new Promise<void>((resolve, reject) => {
        out.write(chunk, (error) => (error ? reject(error) : resolve()));
      }),
  );
  await tar.entry({ name: "blobs/", type: "dir" });
  await tar.entry({ name: "blobs/sha256/", type: "dir" });
  for (const digest of [...blobs.keys()].sort()) {
    const { content, size } = blobs.get(digest) as Blob;
    const header = { name: `blobs/${digest.replace(":", "/")}`, mode: 0o444, size };
    await tar.entry(header, content instanceof Uint8Array ? content : content());
  }
  const index = goJson({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests: [top] });
  await tar.entry({ name: "index.json" }, index);
  await tar.entry({ name: "oci-layout", mode: 0o444 }, LAYOUT);
  await tar.finish();
}

async function addRecords(
  blobs: Map<string, Blob>,
  records: readonly BundledRecord[],
  signal: AbortSignal,
): Promise<OciDescriptor> {
  const manifests: OciDescriptor[] = [];
  for (const record of records) {
    try {
      const manifest = await addRecord(blobs, record, signal);
      if (records.length === 1) return manifest;
      manifests.push({ ...manifest, annotations: new Map([[REFERENCE, record.record.Ref]]) });
    } catch (error) {
      throw wrapError(error, "failed to export: failed to export record");
    }
  }
  return addJson(blobs, INDEX_TYPE, { schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
}

async function addRecord(
  blobs: Map<string, Blob>,
  bundled: BundledRecord,
  signal: AbortSignal,
): Promise<OciDescriptor> {
  const { client, record } = bundled;
  const layers = new LayerList(blobs, client, signal);
  const { json } = historyRecord(await withoutSecrets(record, layers));
  const config = addJson(blobs, RECORD_TYPE, {
    ...(json as object),
    DefaultPlatform: bundled.defaultPlatform,
    localState: bundled.place && placeJson(bundled.place),
    stateGroup: bundled.group && {
      Targets: bundled.group.targets.length > 0 ? bundled.group.targets : undefined,
      Refs: bundled.group.refs,
    },
  });
  await layers.add(record.logs);
  await layers.addResult(record.Result);
  await layers.add(record.externalError);
  for (const key of Object.keys(record.Results).sort()) await layers.addResult(record.Results[key]);
  const manifest = { schemaVersion: 2, mediaType: MANIFEST_TYPE, config, layers: layers.list };
  return addJson(blobs, MANIFEST_TYPE, manifest);
}

/** The record with the trace that is put into `layers`: neither shows the tokens of caches. */
async function withoutSecrets(record: BuildHistoryRecord, layers: LayerList): Promise<BuildHistoryRecord> {
  const attrs = { ...record.FrontendAttrs };
  const imports = attrs["cache-imports"];
  if (imports !== undefined) attrs["cache-imports"] = shownImports(imports);
  const { trace } = record;
  return {
    ...record,
    FrontendAttrs: attrs,
    ...(trace === undefined ? {} : { trace: await layers.addTrace(trace) }),
  };
}

function shownImports(text: string): string {
  try {
    const entries = JSON.parse(text) as { Type?: unknown; Attrs?: Record<string, unknown> }[];
    return goJson(
      entries.map(({ Type, Attrs }) => ({
        Type: String(Type ?? ""),
        Attrs: new Map(
          Object.entries(Attrs ?? {})
            .filter(([key]) => SHOWN_IMPORT_ATTRS.includes(key))
            .map(([key, value]) => [key, String(value)]),
        ),
      })),
    );
  } catch {
    return "";
  }
}

/** The layers of one record's manifest, each blob once. */
class LayerList {
  readonly list: OciDescriptor[] = [];
  readonly #blobs: Map<string, Blob>;
  readonly #client: BuildkitClient;
  readonly #signal: AbortSignal;
  readonly #seen = new Set<string>();

  constructor(blobs: Map<string, Blob>, client: BuildkitClient, signal: AbortSignal) {
    this.#blobs = blobs;
    this.#client = client;
    this.#signal = signal;
  }

  async add(descriptor: Descriptor | undefined, realType?: string): Promise<void> {
    if (descriptor === undefined || this.#seen.has(descriptor.digest)) return;
    const { digest, size } = descriptor;
    this.#seen.add(digest);
    if (!isDigest(digest)) throw new BuildError("data_loss", `failed to parse digest ${digest}`);
    await this.#client.contentInfo(digest, { signal: this.#signal });
    const annotations = new Map(Object.entries(descriptor.annotations));
    // nobody is to look for what an image names
    if (realType !== undefined) annotations.set(REAL_TYPE, realType);
    this.list.push({
      mediaType: realType === undefined ? descriptor.mediaType : "application/json",
      digest,
      size,
      ...(annotations.size > 0 ? { annotations } : {}),
    });
    const content = (): AsyncIterable<Uint8Array> =>
      this.#client.readContent(digest, { signal: this.#signal });
    if (!this.#blobs.has(digest)) this.#blobs.set(digest, { size: Number(size), content });
  }

  async addResult(result: BuildResultInfo | undefined): Promise<void> {
    for (const attestation of result?.Attestations ?? []) await this.add(attestation);
    for (const descriptor of Object.values(result?.Results ?? {}))
      await this.add(descriptor, descriptor.mediaType);
  }

  /** @returns the descriptor of what was put in. */
  async addTrace(trace: Descriptor): Promise<Descriptor> {
    this.#seen.add(trace.digest);
    const text = new TextDecoder().decode(
      await this.#client.readBlob(trace.digest, undefined, { signal: this.#signal }),
    );
    const bytes = new TextEncoder().encode(sanitizedTrace(text));
    const added = addBytes(this.#blobs, trace.mediaType, bytes);
    this.list.push(added);
    return { ...trace, digest: added.digest, size: BigInt(added.size) };
  }
}

function placeJson(place: BuildPlace): object {
  return {
    Target: place.target,
    LocalPath: place.localPath,
    DockerfilePath: place.dockerfilePath,
    GroupRef: place.groupRef || undefined,
  };
}

function addJson(blobs: Map<string, Blob>, mediaType: string, value: unknown): OciDescriptor {
  return addBytes(blobs, mediaType, new TextEncoder().encode(goJson(value, { indent: "  " })));
}

function addBytes(blobs: Map<string, Blob>, mediaType: string, content: Uint8Array): OciDescriptor {
  const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
  blobs.set(digest, { size: content.length, content });
  return { mediaType, digest, size: content.length };
}
