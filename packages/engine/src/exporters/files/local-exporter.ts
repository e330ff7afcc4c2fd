import { BuildError } from "@kiln/base";
import { type SessionCaller, type SessionManager, sendDirectory } from "@kiln/session";
import { joinSources, type TreeSource } from "@kiln/session/fsutil";
import { comparePaths } from "@kiln/sys";
import type { OpContext } from "../../op-context.ts";
import { transferProgress } from "../../sources/local.ts";
import type { Exporter, ExporterInstance, ExportOptions, ExportOutcome, ExportSource } from "../exporter.ts";
import {
  type FileExporterOptions,
  outputEpoch,
  outputPlatforms,
  outputRef,
  parseFileExporterOptions,
} from "./file-exporter-options.ts";
import { type OutputTree, openOutput, platformDir, platformPath } from "./output-tree.ts";

const SESSION_WAIT_MS = 5_000;
const NOTHING: ExportOutcome = { response: new Map() };

/** Writes a result's files into a directory of the client (`type=local`). */
export function createLocalExporter(sessions: SessionManager): Exporter {
  return {
    type: "local",
    resolve: (id, attrs) => {
      const options = parseFileExporterOptions(attrs);
      const instance: ExporterInstance = {
        type: "local",
        id,
        name: "exporting to client directory",
        attrs,
        export: async (source, opts, ctx) => {
          const caller = await callerOf(sessions, opts, ctx);
          await new LocalExport({ source, options, caller, id, ctx }).run();
          return NOTHING;
        },
      };
      return instance;
    },
  };
}

/** The session of the client that wants the files. */
export async function callerOf(
  sessions: SessionManager,
  opts: ExportOptions,
  ctx: OpContext,
): Promise<SessionCaller> {
  return await sessions.get(opts.sessionId, {
    signal: AbortSignal.any([ctx.signal, AbortSignal.timeout(SESSION_WAIT_MS)]),
  });
}

class LocalExport {
  readonly #source: ExportSource;
  readonly #options: FileExporterOptions;
  readonly #caller: SessionCaller;
  readonly #id: number;
  readonly #ctx: OpContext;
  readonly #split: boolean;
  readonly #keyed: boolean;
  readonly #visited = new Map<string, string>();

  constructor(at: {
    readonly source: ExportSource;
    readonly options: FileExporterOptions;
    readonly caller: SessionCaller;
    readonly id: number;
    readonly ctx: OpContext;
  }) {
    this.#source = at.source;
    this.#options = at.options;
    this.#caller = at.caller;
    this.#id = at.id;
    this.#ctx = at.ctx;
    this.#keyed = (at.source.refs?.size ?? 0) > 0;
    this.#split = at.options.platformSplit ?? this.#keyed;
  }

  async run(): Promise<void> {
    const platforms = outputPlatforms(this.#source);
    await using stack = new AsyncDisposableStack();
    const parts: { readonly id: string; readonly source: TreeSource }[] = [];
    for (const { id } of platforms) {
      const tree = stack.use(await this.#open(id));
      if (!this.#split) this.#checkOverlap(id, tree.source);
      parts.push({
        id,
        source: this.#options.mode === "copy" && this.#split ? this.#wrap(id, tree.source) : tree.source,
      });
    }
    if (this.#options.mode === "delete") {
      const all = this.#split
        ? joinSources(parts.map(({ id, source }) => ({ stat: this.#dir(id), source })))
        : mergeSources(parts.map((part) => part.source));
      await this.#send(all, "copying files", true);
      return;
    }
    await Promise.all(
      parts.map(({ id, source }) =>
        this.#send(source, this.#split ? `copying files ${id}` : "copying files", false),
      ),
    );
  }

  #open(id: string): Promise<OutputTree> {
    return openOutput(outputRef(this.#source, id), this.#source.attestations.get(id) ?? [], {
      options: this.#outputOptions(id),
      suffix: this.#keyed && !this.#split ? platformPath(id) : "",
      ctx: this.#ctx,
    });
  }

  #outputOptions(id: string): { epoch: number | undefined; attestationPrefix: string } {
    return {
      epoch: outputEpoch(this.#options, this.#source, id),
      attestationPrefix: this.#options.attestationPrefix,
    };
  }

  #dir(id: string): ReturnType<typeof platformDir> {
    return platformDir(id, this.#outputOptions(id));
  }

  #wrap(id: string, source: TreeSource): TreeSource {
    return joinSources([{ stat: this.#dir(id), source }]);
  }

  #checkOverlap(id: string, source: TreeSource): void {
    for (const stat of source.stats()) {
      if (stat.mode >= 2 ** 31) continue;
      const other = this.#visited.get(stat.path);
      if (other !== undefined) {
        throw new BuildError(
          "invalid_argument",
          `cannot overwrite ${stat.path} from ${other} with ${id} when split option is disabled`,
        );
      }
      this.#visited.set(stat.path, id);
    }
  }

  async #send(source: TreeSource, label: string, multiPlatform: boolean): Promise<void> {
    await sendDirectory(this.#caller, source, {
      exporterId: this.#id,
      onProgress: transferProgress(this.#ctx, label),
      multiPlatform,
      signal: this.#ctx.signal,
    });
  }
}

/** Several trees laid over each other; of two entries with one path the later one counts. */
function mergeSources(sources: readonly TreeSource[]): TreeSource {
  const [first] = sources;
  if (sources.length === 1 && first !== undefined) return first;
  const owner = new Map<string, TreeSource>();
  return {
    *stats() {
      const all = new Map<string, ReturnType<TreeSource["stats"]> extends Iterable<infer S> ? S : never>();
      for (const source of sources) {
        for (const stat of source.stats()) {
          all.set(stat.path, stat);
          owner.set(stat.path, source);
        }
      }
      const key = (path: string): string => path.replaceAll("/", "\0");
      yield* [...all.values()].sort((a, b) => comparePaths(key(a.path), key(b.path)));
    },
    open(path) {
      const source = owner.get(path);
      if (source === undefined) throw new BuildError("not_found", `open ${path}: no such file`);
      return source.open(path);
    },
  };
}
