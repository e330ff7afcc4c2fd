/** The `index.json` of an OCI layout on this machine. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { goJson, randomHex } from "@kiln/formats";

const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
const REF_NAME = "org.opencontainers.image.ref.name";
const IMAGE_NAME = "io.containerd.image.name";
const MAX_INDEX_BYTES = 16 << 20;

/** An entry of an index. Fields that Kiln doesn't know are kept. */
export interface IndexEntry {
  readonly mediaType?: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

/** What an entry is found by: a whole image name, or a tag alone. */
export type EntryName = { readonly image: string } | { readonly tag: string };

interface IndexFile {
  readonly manifests: readonly IndexEntry[];
  readonly [key: string]: unknown;
}

/** Reads and writes the index of one layout. */
export class OciIndex {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** All entries, none when there is no index. @throws BuildError for a file that is no index. */
  entries(): readonly IndexEntry[] {
    return this.#read().manifests;
  }

  /** The entry of a tag or image name, undefined when there is none. */
  find(name: string): IndexEntry | undefined {
    return this.entries().find(({ annotations = {} }) => {
      const image = annotations[IMAGE_NAME];
      return image === name || annotations[REF_NAME] === name || image?.split(":").at(-1) === name;
    });
  }

  /** Adds an entry under names; older entries lose those names, and go when they had no other. */
  put(entry: IndexEntry, names: readonly EntryName[]): void {
    const index = this.#read();
    const added = names.map((name) => ({
      ...entry,
      annotations: sorted({ ...entry.annotations, ...annotationsOf(name) }),
    }));
    const taken = new Set(added.map(({ annotations }) => nameOf(annotations)));
    const kept = index.manifests.filter(({ annotations = {} }) => !taken.has(nameOf(annotations)));
    mkdirSync(this.#dir, { recursive: true });
    writeFileSync(join(this.#dir, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    this.#write({ ...index, manifests: [...kept, ...(added.length > 0 ? added : [entry])] });
  }

  #read(): IndexFile {
    const file = join(this.#dir, "index.json");
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") {
        return { schemaVersion: 2, mediaType: INDEX_TYPE, manifests: [] };
      }
      throw new BuildError("unknown", `failed to read ${file}: ${errorMessage(error)}`, { cause: error });
    }
    if (text.length > MAX_INDEX_BYTES) throw new BuildError("resource_exhausted", `${file} is too large`);
    try {
      const data = JSON.parse(text) as IndexFile;
      if (Array.isArray(data.manifests)) return data;
      return { ...data, manifests: [] };
    } catch (error) {
      throw new BuildError(
        "invalid_argument",
        `could not unmarshal ${file} (${JSON.stringify(text.slice(0, 80))})`,
        {
          cause: error,
        },
      );
    }
  }

  #write(index: IndexFile): void {
    const file = join(this.#dir, "index.json");
    const temporary = `${file}.tmp-${randomHex(6)}`;
    try {
      writeFileSync(temporary, goJson(index), { flush: true });
      renameSync(temporary, file);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  }
}

function sorted(annotations: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function annotationsOf(name: EntryName): Record<string, string> {
  if ("tag" in name) return { [REF_NAME]: name.tag };
  const colon = name.image.lastIndexOf(":");
  const tag = colon > name.image.lastIndexOf("/") ? name.image.slice(colon + 1) : "";
  return { [IMAGE_NAME]: name.image, ...(tag === "" ? {} : { [REF_NAME]: tag }) };
}

function nameOf(annotations: Readonly<Record<string, string>>): string {
  return `${annotations[IMAGE_NAME] ?? ""}\0${annotations[REF_NAME] ?? ""}`;
}
