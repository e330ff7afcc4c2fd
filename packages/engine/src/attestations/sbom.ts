import { lstatSync, type Stats } from "node:fs";
import { posix } from "node:path";
import type { ImmutableRef, Remote } from "@kiln/store";
import { fsPath, localMount, rootPath } from "@kiln/sys";
import type { OpContext } from "../op-context.ts";
import type { Attestation } from "../solve/build-results.ts";
import { KILN_BUILDKIT_VERSION } from "../version.ts";
import { attestationContent } from "./unbundle.ts";

const SPDX = "https://spdx.dev/Document";

interface SpdxFile {
  fileName?: unknown;
  comment?: unknown;
}

/**
 * Adds to the core SBOM of an image in which layer each file is, and who did so. A document that isn't
 * SPDX in JSON stays as it is.
 */
export async function supplementSbom(
  attestation: Attestation<ImmutableRef>,
  ref: ImmutableRef | undefined,
  remote: Remote,
  ctx: OpContext,
): Promise<Attestation<ImmutableRef>> {
  const core = attestation.metadata.get("sbom-core");
  if (ref === undefined || core === undefined || attestation.predicateType !== SPDX) return attestation;
  const base = attestation.path.slice(attestation.path.lastIndexOf("/") + 1);
  if (base.split(".", 1)[0] !== new TextDecoder().decode(core)) return attestation;
  let document: Record<string, unknown>;
  try {
    const parsed: unknown = JSON.parse(await attestationContent(attestation, ctx));
    if (typeof parsed !== "object" || parsed === null) return attestation;
    document = parsed as Record<string, unknown>;
  } catch (error) {
    if (error instanceof SyntaxError) return attestation;
    throw error;
  }
  await using finder = await LayerFinder.open(ref, remote, ctx);
  for (const file of filesOf(document)) {
    if (typeof file.fileName !== "string" || (file.comment !== undefined && file.comment !== "")) continue;
    const digest = finder.find(file.fileName);
    if (digest !== undefined) file.comment = `layerID: ${digest}`;
  }
  addCreator(document);
  const text = Buffer.from(JSON.stringify(document));
  return { ...attestation, ref: undefined, content: async () => text };
}

function filesOf(document: Record<string, unknown>): SpdxFile[] {
  const list = (value: unknown): SpdxFile[] => (Array.isArray(value) ? (value as SpdxFile[]) : []);
  const packages = list(document["packages"]) as { files?: unknown }[];
  return [...list(document["files"]), ...packages.flatMap((item) => list(item?.files))].filter(
    (file) => typeof file === "object" && file !== null,
  );
}

function addCreator(document: Record<string, unknown>): void {
  const info = (document["creationInfo"] ?? {}) as { creators?: unknown };
  const creators = Array.isArray(info.creators) ? info.creators : [];
  document["creationInfo"] = { ...info, creators: [...creators, `Tool: buildkit-${KILN_BUILDKIT_VERSION}`] };
}

/** The file at a path; a path through a symbolic link is no file's own, and could lead out of the tree. */
function lstatInside(root: string, path: string): Stats | undefined {
  const parent = posix.dirname(path);
  if (rootPath(root, parent) !== (parent === "/" ? root : `${root}${parent}`)) return undefined;
  try {
    return lstatSync(fsPath(`${root}${path}`), { throwIfNoEntry: false });
  } catch (error) {
    // a file where the path has a directory
    if (error instanceof Error && "code" in error && error.code === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Finds the topmost layer that has a path. */
class LayerFinder implements AsyncDisposable {
  readonly #layers: { readonly root: string; readonly digest: string }[];
  readonly #stack: AsyncDisposableStack;

  private constructor(layers: { root: string; digest: string }[], stack: AsyncDisposableStack) {
    this.#layers = layers;
    this.#stack = stack;
  }

  static async open(ref: ImmutableRef, remote: Remote, ctx: OpContext): Promise<LayerFinder> {
    await using stack = new AsyncDisposableStack();
    const layers: { root: string; digest: string }[] = [];
    for (const [at, layer] of ref.layers().entries()) {
      stack.use(layer);
      const digest = remote.descriptors[at]?.digest;
      if (digest === undefined) continue;
      const mountable = stack.use(await layer.mount(true, { signal: ctx.signal, session: ctx.sessions }));
      layers.push({ root: stack.use(localMount(mountable.mounts)).path, digest });
    }
    return new LayerFinder(layers, stack.move());
  }

  /** Digest of the layer in which the file was last changed. */
  find(name: string): string | undefined {
    const path = posix.join("/", name);
    if (path === "/" || path.includes("\0")) return undefined;
    let found: string | undefined;
    let before: { mtimeMs: number; size: number; ino: number } | undefined;
    for (const { root, digest } of this.#layers) {
      const stat = lstatInside(root, path);
      if (stat === undefined) {
        found = undefined;
        before = undefined;
      } else if (before === undefined || stat.mtimeMs !== before.mtimeMs || stat.size !== before.size) {
        found = digest;
        before = stat;
      }
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
