import { BuildError } from "@kiln/base";
import type { Remote, RemoteDescriptor } from "../cache/cache-source.ts";
import type { CacheExportLink, CacheExportResult, CacheExportTarget } from "../export/target.ts";
import { type CacheConfig, type CacheConfigLayer, type CacheConfigRecord, nanosecondsOf } from "./config.ts";

/** Most layers below one another. */
const MAX_CHAIN_LAYERS = 1000;

/** Where the layers of an imported cache are. */
export interface ImportedLayers {
  /** By digest. A result with a layer that isn't here is left out. */
  readonly descriptors: ReadonlyMap<string, RemoteDescriptor>;
  /** Handed on in {@link Remote.provider}. */
  readonly provider: unknown;
}

/**
 * Adds the records of a cache config to a target, inputs first.
 *
 * @throws invalid_argument for indexes that lead nowhere, loops, and inputs without links.
 */
export function readCacheConfig<TRecord>(
  config: CacheConfig,
  layers: ImportedLayers,
  target: CacheExportTarget<TRecord>,
): void {
  const records = config.records ?? [];
  const results = new ResultReader(config.layers ?? [], layers);
  const added = new Map<number, TRecord | undefined>();
  for (const index of inputsFirst(records)) {
    const record = records[index]!;
    const inputs = (record.inputs ?? []).map((links) =>
      links.flatMap((input): CacheExportLink<TRecord>[] => {
        const from = added.get(input.link);
        return from === undefined ? [] : [{ record: from, selector: input.selector ?? "" }];
      }),
    );
    // an input that the target didn't take takes its users with it
    if (inputs.some((links) => links.length === 0)) added.set(index, undefined);
    else added.set(index, target.add(record.digest ?? "", inputs, results.of(record)));
  }
}

/** Indexes of all records, each after those it links to. */
function inputsFirst(records: readonly CacheConfigRecord[]): number[] {
  const out: number[] = [];
  const state = new Map<number, "open" | "done">();
  for (const first of records.keys()) {
    const stack = [first];
    for (let index = stack.at(-1); index !== undefined; index = stack.at(-1)) {
      const links = linksOf(records, index);
      if (state.get(index) === undefined) {
        state.set(index, "open");
        for (const link of links) {
          if (state.get(link) === "open") throw invalid("looping record");
          if (state.get(link) === undefined) stack.push(link);
        }
        continue;
      }
      stack.pop();
      if (state.get(index) === "done") continue;
      if (links.some((link) => state.get(link) !== "done")) throw invalid("looping record");
      state.set(index, "done");
      out.push(index);
    }
  }
  return out;
}

function linksOf(records: readonly CacheConfigRecord[], index: number): number[] {
  const record = records[index];
  if (!record) throw invalid(`record ID: ${index}`);
  const out: number[] = [];
  for (const links of record.inputs ?? []) {
    if (links.length === 0) throw invalid(`empty input for record ${index}`);
    for (const { link } of links) out.push(link);
  }
  return out;
}

class ResultReader {
  readonly #layers: readonly CacheConfigLayer[];
  readonly #from: ImportedLayers;
  readonly #chains = new Map<number, readonly RemoteDescriptor[] | undefined>();

  constructor(layers: readonly CacheConfigLayer[], from: ImportedLayers) {
    this.#layers = layers;
    this.#from = from;
  }

  of(record: CacheConfigRecord): CacheExportResult[] {
    const out: CacheExportResult[] = [];
    for (const { layer, createdAt } of record.layers ?? []) {
      this.#push(out, this.#chain(layer), createdAt);
    }
    for (const { layers, createdAt } of record.chains ?? []) {
      if (layers.length > MAX_CHAIN_LAYERS) throw invalid(`chain of ${layers.length} layers`);
      const descriptors = layers.map((index) => this.#descriptor(index));
      this.#push(out, descriptors.every((d) => d !== undefined) ? descriptors : undefined, createdAt);
    }
    return out;
  }

  #push(
    out: CacheExportResult[],
    descriptors: readonly RemoteDescriptor[] | undefined,
    createdAt: string,
  ): void {
    if (!descriptors) return;
    const remote: Remote = { descriptors, provider: this.#from.provider };
    out.push({ remote, createdAtNs: nanosecondsOf(createdAt), vertex: "", index: 0 });
  }

  #descriptor(index: number): RemoteDescriptor | undefined {
    const layer = this.#layers[index];
    if (!layer) throw invalid(`layer index ${index}`);
    return this.#from.descriptors.get(layer.blob ?? "");
  }

  /** The layer and all below it, lowest first; `undefined` if one of them isn't there. */
  #chain(top: number): readonly RemoteDescriptor[] | undefined {
    if (this.#chains.has(top)) return this.#chains.get(top);
    const out: RemoteDescriptor[] = [];
    let missing = false;
    const seen = new Set<number>();
    for (let index = top; index !== -1; index = this.#layers[index]!.parent ?? 0) {
      if (seen.has(index)) throw invalid("looping layer");
      if (seen.size >= MAX_CHAIN_LAYERS) throw invalid(`chain of more than ${MAX_CHAIN_LAYERS} layers`);
      seen.add(index);
      const descriptor = this.#descriptor(index);
      if (descriptor) out.push(descriptor);
      else missing = true;
    }
    const chain = missing ? undefined : out.reverse();
    this.#chains.set(top, chain);
    return chain;
  }
}

function invalid(what: string): BuildError {
  return new BuildError("invalid_argument", `invalid ${what}`);
}
