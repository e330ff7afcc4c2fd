import { closeSync, readSync } from "node:fs";
import { type TarHeader, TarWriter } from "@kiln/archive";
import { openFileWriter, type RemoteFileWriter, type SessionManager } from "@kiln/session";
import {
  GoMode,
  hasGoMode,
  isGoDir,
  isGoSymlink,
  joinSources,
  posixFromGoMode,
  type Stat,
  type TreeSource,
} from "@kiln/session/fsutil";
import { type OpContext, withStatus } from "../../op-context.ts";
import type { Exporter, ExportSource } from "../exporter.ts";
import {
  type FileExporterOptions,
  outputEpoch,
  outputPlatforms,
  outputRef,
  parseFileExporterOptions,
} from "./file-exporter-options.ts";
import { callerOf } from "./local-exporter.ts";
import { openOutput, platformDir } from "./output-tree.ts";

const READ_BYTES = 1 << 20;

/** Sends a result's files as a tar file (`type=tar`). */
export function createTarExporter(sessions: SessionManager): Exporter {
  return {
    type: "tar",
    resolve: (id, attrs) => {
      const options = parseFileExporterOptions(attrs);
      return {
        type: "tar",
        id,
        name: "exporting to client tarball",
        attrs,
        export: async (source, opts, ctx) => {
          await using stack = new AsyncDisposableStack();
          const tree = await openAll(source, { options, stack, ctx });
          const caller = await callerOf(sessions, opts, ctx);
          await using file = await openFileWriter(caller, { exporterId: id, signal: ctx.signal });
          await withStatus(ctx.progress, "sending tarball", async () => {
            await writeTar(tree, file, ctx.signal);
            await file.close();
          });
          return { response: new Map() };
        },
      };
    },
  };
}

async function openAll(
  source: ExportSource,
  at: {
    readonly options: FileExporterOptions;
    readonly stack: AsyncDisposableStack;
    readonly ctx: OpContext;
  },
): Promise<TreeSource> {
  const keyed = (source.refs?.size ?? 0) > 0;
  const parts: { readonly stat: Stat; readonly source: TreeSource }[] = [];
  for (const { id } of outputPlatforms(source)) {
    const options = {
      epoch: outputEpoch(at.options, source, id),
      attestationPrefix: at.options.attestationPrefix,
    };
    const tree = at.stack.use(
      await openOutput(outputRef(source, id), source.attestations.get(id) ?? [], {
        options,
        suffix: "",
        ctx: at.ctx,
      }),
    );
    parts.push({ stat: platformDir(id, options), source: tree.source });
  }
  const [first] = parts;
  return keyed || first === undefined ? joinSources(parts) : first.source;
}

async function writeTar(tree: TreeSource, file: RemoteFileWriter, signal: AbortSignal): Promise<void> {
  const writer = new TarWriter((chunk) => file.write(chunk));
  for (const stat of tree.stats()) {
    signal.throwIfAborted();
    const header = headerOf(stat);
    await writer.entry(header, header.size === 0 ? undefined : contentOf(tree, stat.path, header.size));
  }
  await writer.finish();
}

/** The bytes of a file; no more than it had when it was listed. */
async function* contentOf(tree: TreeSource, path: string, size: number): AsyncGenerator<Uint8Array> {
  const fd = tree.open(path);
  try {
    for (let left = size; left > 0; ) {
      const chunk = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const read = readSync(fd, chunk, 0, chunk.length, null);
      if (read === 0) return;
      yield chunk.subarray(0, read);
      left -= read;
    }
  } finally {
    closeSync(fd);
  }
}

function headerOf(stat: Stat): TarHeader {
  const dir = isGoDir(stat.mode);
  const base = {
    name: dir ? `${stat.path}/` : stat.path,
    mode: posixFromGoMode(stat.mode) & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: 0,
    mtimeNs: stat.modTime,
    devmajor: Number(stat.devmajor),
    devminor: Number(stat.devminor),
    xattrs: new Map(Object.entries(stat.xattrs)),
  };
  if (dir) return { ...base, type: "dir" };
  if (isGoSymlink(stat.mode)) return { ...base, type: "symlink", linkname: stat.linkname };
  if (stat.linkname !== "") return { ...base, type: "link", linkname: stat.linkname };
  if (hasGoMode(stat.mode, GoMode.NAMED_PIPE)) return { ...base, type: "fifo" };
  if (hasGoMode(stat.mode, GoMode.CHAR_DEVICE)) return { ...base, type: "char" };
  if (hasGoMode(stat.mode, GoMode.DEVICE)) return { ...base, type: "block" };
  return { ...base, type: "file", size: Number(stat.size) };
}
