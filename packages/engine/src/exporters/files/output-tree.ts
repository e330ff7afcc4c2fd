import { createHash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { GoMode, isGoRegular, type Stat, sourceOfDir, type TreeSource } from "@kiln/session/fsutil";
import type { ImmutableRef } from "@kiln/store";
import { comparePaths, localMount } from "@kiln/sys";
import {
  digestMap,
  makeStatements,
  type StatementSubject,
  statementText,
} from "../../attestations/statements.ts";
import { unbundle } from "../../attestations/unbundle.ts";
import type { OpContext } from "../../op-context.ts";
import type { Attestation } from "../../solve/build-results.ts";

/** Options of the exporters that write files (buildkit.md §6.1). */
export interface OutputOptions {
  /** Seconds; every file gets this time. */
  readonly epoch: number | undefined;
  readonly attestationPrefix: string;
}

/** A file beside a tree: an attestation. */
interface ExtraFile {
  readonly stat: Stat;
  readonly data: Uint8Array;
}

/** What is written for one platform. */
export interface OutputTree extends AsyncDisposable {
  readonly source: TreeSource;
}

/**
 * Opens what one platform's files are: its tree, with the attestations that go beside it.
 *
 * `suffix` goes before the ending of an attestation's name, for trees that share a directory.
 */
export async function openOutput(
  ref: ImmutableRef | undefined,
  attestations: readonly Attestation<ImmutableRef>[],
  at: { readonly options: OutputOptions; readonly suffix: string; readonly ctx: OpContext },
): Promise<OutputTree> {
  await using stack = new AsyncDisposableStack();
  const mounts = ref && stack.use(await ref.mount(true, { signal: at.ctx.signal, session: at.ctx.sessions }));
  const dir = stack.use(localMount(mounts?.mounts ?? []));
  const { epoch } = at.options;
  const timed = (stat: Stat): Stat =>
    epoch === undefined ? stat : { ...stat, modTime: BigInt(epoch) * 1_000_000_000n };
  const plain = sourceOfDir(dir.path);
  const tree: TreeSource = {
    *stats() {
      for (const stat of plain.stats()) yield timed(stat);
    },
    open: (path) => plain.open(path),
  };
  const extra = await attestationFiles(tree, attestations, at);
  const held = stack.move();
  return {
    source: extra.length === 0 ? tree : withFiles(tree, extra, held),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function attestationFiles(
  tree: TreeSource,
  attestations: readonly Attestation<ImmutableRef>[],
  at: { readonly options: OutputOptions; readonly suffix: string; readonly ctx: OpContext },
): Promise<ExtraFile[]> {
  const wanted = attestations.filter(
    (item) => new TextDecoder().decode(item.metadata.get("inline-only")) !== "true",
  );
  const single = await unbundle(wanted, at.ctx);
  if (single.length === 0) return [];
  const statements = await makeStatements(single, hashFiles(tree), at.ctx);
  const nowNs = BigInt(Math.floor(Date.now() / 1000)) * 1_000_000_000n;
  const { epoch, attestationPrefix } = at.options;
  const files = new Map<string, ExtraFile>();
  for (const statement of statements) {
    const base = statement.path.slice(statement.path.lastIndexOf("/") + 1);
    const name = attestationPrefix + withSuffix(base, at.suffix);
    if (files.has(name)) {
      throw new BuildError("invalid_argument", `duplicate attestation path name ${name}`);
    }
    const data = Buffer.from(statementText(statement, true));
    files.set(name, {
      data,
      stat: {
        path: name,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: BigInt(data.length),
        modTime: epoch === undefined ? nowNs : BigInt(epoch) * 1_000_000_000n,
        linkname: "",
        devmajor: 0n,
        devminor: 0n,
        xattrs: {},
      },
    });
  }
  return [...files.values()];
}

function withSuffix(name: string, suffix: string): string {
  if (suffix === "") return name;
  const dot = name.lastIndexOf(".");
  return dot < 0 ? `${name}.${suffix}` : `${name.slice(0, dot)}.${suffix}${name.slice(dot)}`;
}

/** Every regular file of a tree with its digest: what attestations beside it speak of. */
function hashFiles(tree: TreeSource): StatementSubject[] {
  const subjects: StatementSubject[] = [];
  const chunk = Buffer.allocUnsafe(1 << 20);
  for (const stat of tree.stats()) {
    if (!isGoRegular(stat.mode)) continue;
    const hash = createHash("sha256");
    const fd = tree.open(stat.path);
    try {
      for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) {
        hash.update(chunk.subarray(0, read));
      }
    } finally {
      closeSync(fd);
    }
    subjects.push({ name: stat.path, digest: digestMap(`sha256:${hash.digest("hex")}`) });
  }
  return subjects;
}

/** A tree with more files at its top; a file wins over what the tree has in its place. */
function withFiles(tree: TreeSource, files: readonly ExtraFile[], held: AsyncDisposableStack): TreeSource {
  const byPath = new Map(files.map((file) => [file.stat.path, file]));
  const sorted = [...files].sort((a, b) => comparePaths(a.stat.path, b.stat.path));
  const dir = mkdtempSync(join(tmpdir(), "kiln-attestations-"));
  held.defer(() => rmSync(dir, { recursive: true, force: true }));
  return {
    *stats() {
      let at = 0;
      for (const stat of tree.stats()) {
        const top = stat.path.split("/", 1)[0] ?? "";
        while (at < sorted.length && comparePaths(sorted[at]?.stat.path ?? "", top) < 0) {
          yield (sorted[at++] as ExtraFile).stat;
        }
        if (!byPath.has(top)) yield stat;
      }
      for (const file of sorted.slice(at)) yield file.stat;
    },
    open(path) {
      const file = byPath.get(path);
      if (file === undefined) return tree.open(path);
      const copy = join(dir, String(sorted.indexOf(file)));
      writeFileSync(copy, file.data);
      return openSync(copy, "r");
    },
  };
}

/** The directory of one platform, for results that are split by platform. */
export function platformDir(id: string, options: OutputOptions): Stat {
  return {
    path: platformPath(id),
    mode: GoMode.DIR + 0o755,
    uid: 0,
    gid: 0,
    size: 0n,
    modTime: options.epoch === undefined ? 0n : BigInt(options.epoch) * 1_000_000_000n,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: {},
  };
}

/** A key of a result as a single, safe name: `linux/amd64` is `linux_amd64`. */
export function platformPath(id: string): string {
  const name = id.replaceAll(/[/\\]/g, "_");
  return name === "." || name === ".." || name === "" ? "_" : name;
}
