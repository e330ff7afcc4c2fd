import { FileSend } from "@kiln/api/filesync";
import { BuildError, errorMessage } from "@kiln/base";
import { bytesFieldCodec, pathOf } from "@kiln/grpc/client";
import type { CallContext, Router, ServerCall } from "@kiln/grpc/server";
import { packetCodec, receiveTree, type Stat } from "../fsutil/index.ts";
import { sessionHeaders } from "../headers.ts";
import { makeDirs } from "../make-dirs.ts";
import type { Attachable } from "./attachable.ts";

/** Takes the bytes of one exported file. */
export interface FileSink {
  write(data: Uint8Array): Promise<void>;
  /** The file is complete. */
  close(): Promise<void>;
  /** The export has failed: drop what was written. */
  abort(error: unknown): Promise<void>;
}

/** Where an export goes. */
export type SendTarget =
  | {
      readonly kind: "dir";
      readonly dir: string;
      /** `delete` makes the directory a mirror of the export; `copy` (default) adds to it. */
      readonly mode?: "copy" | "delete";
    }
  | {
      readonly kind: "file";
      /** Opens the file, knowing what the exporter said; undefined when it isn't wanted any more. */
      readonly open: (metadata: Readonly<Record<string, string>>) => Promise<FileSink | undefined>;
    };

/** Receives local, tar, OCI and docker exports, each by the index of its exporter in the request. */
export class FileSendTarget implements Attachable {
  readonly #targets: Map<number, SendTarget>;

  constructor(targets: Iterable<readonly [number, SendTarget]>) {
    this.#targets = new Map(targets);
  }

  /** Adds a target while the session runs. */
  set(exporterId: number, target: SendTarget): void {
    this.#targets.set(exporterId, target);
  }

  addTo(router: Router): void {
    router.add(FileSend, {});
    router.addRaw(pathOf(FileSend.method.diffCopy), async (call, ctx) => {
      const raw = ctx.metadata.get(sessionHeaders.exporterId) ?? "0";
      const id = /^-?\d{1,9}$/.test(raw) ? Number(raw) : 0;
      const target = this.#targets.get(id);
      if (!target) throw new BuildError("unknown", `exporter ${id} not found`);
      if (target.kind === "dir") await receiveDir(call, ctx, target);
      else await receiveFile(call, await target.open(exporterMetadata(ctx)));
    });
  }
}

async function receiveDir(
  call: ServerCall<Uint8Array, Uint8Array>,
  ctx: CallContext,
  target: SendTarget & { readonly kind: "dir" },
): Promise<void> {
  const mirror = target.mode === "delete";
  if (mirror && !ctx.metadata.getAll(sessionHeaders.multiPlatform).includes("1")) {
    throw new BuildError(
      "unknown",
      "local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
    );
  }
  try {
    makeDirs(target.dir, 0o700);
  } catch (error) {
    throw new BuildError(
      "unknown",
      `failed to create synctarget dest dir ${target.dir}: ${errorMessage(error)}`,
      {
        cause: error,
      },
    );
  }
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  await receiveTree(call.as(packetCodec), target.dir, {
    merge: !mirror,
    whole: true,
    differ: mirror ? "none" : "metadata",
    signal: ctx.signal,
    filter: (_path: string, stat: Stat) => {
      stat.uid = uid;
      stat.gid = gid;
      return true;
    },
  });
}

async function receiveFile(
  call: ServerCall<Uint8Array, Uint8Array>,
  sink: FileSink | undefined,
): Promise<void> {
  if (sink === undefined) throw new BuildError("already_exists", "target already exists");
  try {
    for await (const data of call.as(bytesFieldCodec)) await sink.write(data);
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.close();
}

function exporterMetadata(ctx: CallContext): Record<string, string> {
  const out = new Map<string, string[]>();
  for (const [key, value] of ctx.metadata.entries()) {
    if (!key.startsWith(sessionHeaders.exporterMetaPrefix) || typeof value !== "string") continue;
    const name = key.slice(sessionHeaders.exporterMetaPrefix.length);
    out.set(name, [...(out.get(name) ?? []), value]);
  }
  return Object.fromEntries([...out].map(([name, values]) => [name, values.join(",")]));
}
