/** Reads the files of a definition: local ones, and those of a URL that stands before the targets. */
import {
  type BakeFile,
  type BakeHost,
  filesFromEnvironment,
  type RemoteDefinition,
  readBakeFiles,
} from "@kiln/bake";
import { asVertex, type Builder } from "@kiln/driver";
import type { FetchedTree } from "../build/inputs.ts";
import { isRemoteUrl } from "../build/remote-url.ts";
import { StdinSource } from "../build/stdin-source.ts";
import type { CommandContext } from "../command/command.ts";
import type { Printer } from "../printer.ts";
import {
  type DefinitionPermissions,
  evaluateDefinitions,
  isTypedDefinition,
  TYPED_DEFINITION,
} from "./evaluate-definition.ts";

const MAX_STDIN_BYTES = 16 << 20;
const CWD = "cwd://";

/** The arguments of `bake`: `[URL [URL of the context]] [TARGET...]`. */
export interface BakeArguments {
  /** Where the definition is; "" for this machine. */
  readonly url: string;
  /** `BAKE_CMD_CONTEXT`. */
  readonly commandContext: string;
  readonly targets: readonly string[];
}

/** Tells URLs from targets. */
export function parseBakeArguments(args: readonly string[]): BakeArguments {
  const [url = "", context = "", ...more] = args;
  if (!isRemoteUrl(url)) return { url: "", commandContext: CWD, targets: args };
  if (!isRemoteUrl(context)) return { url, commandContext: CWD, targets: args.slice(1) };
  return { url, commandContext: context, targets: more };
}

/** The files of a definition, and what they were fetched with. */
export interface LoadedDefinition {
  readonly files: readonly BakeFile[];
  readonly remote?: RemoteDefinition;
  /** The fetched tree. */
  readonly tree?: FetchedTree;
}

/** What files are read with. */
export interface LoadOptions {
  readonly host: BakeHost;
  readonly printer: Printer;
  /** Where a URL is fetched; local files need none. */
  readonly builder: Builder | undefined;
  readonly url: string;
  /** For definitions that are programs. */
  readonly permissions: DefinitionPermissions;
}

/**
 * Reads everything that `-f` and the URL name, and evaluates what of it is a program. With a URL only `-f cwd://…` are
 * files of this machine. When nothing is named, Buildx's usual names come first: `kiln.bake.ts` counts if none of them
 * is there.
 */
export async function loadDefinition(ctx: CommandContext, options: LoadOptions): Promise<LoadedDefinition> {
  const loaded = await readDefinitionFiles(ctx, options);
  const { host, printer, permissions } = options;
  const names = loaded.files.map(({ name }) => name).filter(isTypedDefinition);
  if (names.length === 0) return loaded;
  const files = await asVertex(`[internal] evaluate ${names.join(", ")}`, printer.update, () =>
    evaluateDefinitions(loaded.files, host, {
      permissions,
      vars: ctx.flags.list("var"),
      onOutput: (text) => {
        if (text !== "") printer.warn(`${names.join(", ")} printed:\n${text.trimEnd()}`);
      },
      signal: ctx.signal,
    }),
  );
  return { ...loaded, files };
}

async function readDefinitionFiles(ctx: CommandContext, options: LoadOptions): Promise<LoadedDefinition> {
  const { host, printer, builder, url } = options;
  const given = ctx.flags.list("file");
  const fromEnv = given.length === 0 ? filesFromEnvironment(host) : undefined;
  const all = fromEnv ?? given;
  const where = fromEnv === undefined || fromEnv.length === 0 ? "" : " from BUILDX_BAKE_FILE env";
  const isLocal = (name: string): boolean => url === "" || name.startsWith(CWD);
  const local = all.filter(isLocal).map((name) => name.replace(/^cwd:\/\//, ""));
  if (url === "" || builder === undefined)
    return { files: await readLocal(ctx, options, { names: local, where }) };
  const { fetchDefinition } = await import("./remote-definition.ts");
  const fetched = await fetchDefinition({
    url,
    names: all.filter((name) => !isLocal(name)),
    builder,
    env: ctx.terminal.env,
    onStatus: printer.update,
    signal: ctx.signal,
  });
  const more = local.length === 0 ? [] : await readLocal(ctx, options, { names: local, where });
  return { ...fetched, files: [...fetched.files, ...more] };
}

async function readLocal(
  ctx: CommandContext,
  { host, printer }: LoadOptions,
  { names, where }: { readonly names: readonly string[]; readonly where: string },
): Promise<BakeFile[]> {
  const stdin = names.includes("-")
    ? await new StdinSource(ctx.terminal.stdin).readAll(MAX_STDIN_BYTES)
    : new Uint8Array();
  return asVertex(`[internal] load local bake definitions${where}`, printer.update, (report) => {
    const startedMs = Date.now();
    const files = readBakeFiles(names, host, () => stdin);
    if (names.length === 0) addTyped(files, host, printer);
    for (const { name, data } of files) {
      const size = BigInt(data.length);
      const id = `reading ${name === "-" ? "from stdin" : name}`;
      report({ id, current: size, total: size, startedMs, isDone: true });
    }
    return Promise.resolve(files);
  });
}

/** `kiln.bake.ts` is read when no file with one of Buildx's names is there. */
function addTyped(files: BakeFile[], host: BakeHost, printer: Printer): void {
  if (host.stat(TYPED_DEFINITION)?.kind !== "file") return;
  const [first] = files;
  if (first === undefined) {
    const data = host.readFile(TYPED_DEFINITION);
    if (data !== undefined) files.push({ name: TYPED_DEFINITION, data });
  } else {
    printer.warn(
      `${TYPED_DEFINITION} is not read because ${first.name} is there; name it with -f ${TYPED_DEFINITION}`,
    );
  }
}
