import { fromBinary } from "@bufbuild/protobuf";
import { OpSchema, type SourceOp } from "@kiln/api/pb";
import { type State, source as sourceState } from "@kiln/llb";
import { equalFold } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { CompileHost } from "../compile/host.ts";
import { newestFile } from "./archive.ts";
import type { FrontendBackend, ResolvedImage, ResolveImageOptions, SourceRequest } from "./backend.ts";
import { commitTime } from "./commit.ts";
import type { FrontendConfig } from "./config.ts";
import type { ContextFiles } from "./context.ts";
import { readSmallFile } from "./files.ts";
import { findNamedContext } from "./named-context.ts";

/** The compiler's view of the daemon. */
export function createHost(
  backend: FrontendBackend,
  config: FrontendConfig,
  files: ContextFiles,
): CompileHost {
  const resolve = cachedResolver(backend);
  const cached: FrontendBackend = withResolver(backend, resolve);
  return {
    llbCaps: backend.llbCaps,
    resolveImage: resolve,
    namedContext: (name, options) => findNamedContext({ backend: cached, config, files }, name, options),
    mainContext: (paths) => files.mainContext(paths),
    ignorePatterns: () => files.ignorePatterns(),
    ignoresCache: (stage) => {
      if (config.ignoreCache === undefined) return false;
      return config.ignoreCache.length === 0 || config.ignoreCache.some((name) => equalFold(name, stage));
    },
    epochOf: (state, logName) => epochOf(backend, state, { files, logName }),
  };
}

type Resolver = (ref: string, options: ResolveImageOptions) => Promise<ResolvedImage>;

/** Asks for each image once. */
function cachedResolver(backend: FrontendBackend): Resolver {
  const answers = new Map<string, Promise<ResolvedImage>>();
  return (ref, options) => {
    const key = JSON.stringify([ref, options]);
    let answer = answers.get(key);
    if (answer === undefined) {
      answer = backend.resolveImageConfig(ref, options);
      answers.set(key, answer);
    }
    return answer;
  };
}

function withResolver(backend: FrontendBackend, resolveImageConfig: Resolver): FrontendBackend {
  return new Proxy(backend, {
    get: (target, key) => {
      if (key === "resolveImageConfig") return resolveImageConfig;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function epochOf(
  backend: FrontendBackend,
  state: State,
  { files, logName }: { files: ContextFiles; logName: string },
): Promise<bigint | undefined> {
  const definition = state.marshal(files.marshalOptions());
  const found = definition.def
    .map((bytes) => fromBinary(OpSchema, bytes).op)
    .filter((op) => op.case === "source");
  const source: SourceOp | undefined = found[0]?.value;
  if (source === undefined || found.length !== 1) return undefined;
  const { identifier } = source;
  const request: SourceRequest = { identifier, attrs: new Map(Object.entries(source.attrs)) };
  const isGit = identifier.startsWith("git://");
  const about = await backend.resolveSourceMetadata(request, { logName, gitObject: isGit });
  const commit = about.git?.commitObject;
  if (commit !== undefined && commit.length > 0) return commitTime(commit);
  if (about.http?.lastModifiedMs !== undefined) return BigInt(Math.floor(about.http.lastModifiedMs / 1000));
  const filename = request.attrs.get("http.filename") ?? "";
  if (!/^https?:\/\//.test(identifier) || filename === "" || backend.decompress === undefined)
    return undefined;
  // the file itself, not what an archive context unpacks from it
  const file = sourceState(identifier, new Map(request.attrs)).marshal(files.marshalOptions());
  const { ref } = await backend.solve({ definition: file });
  if (ref === undefined) throw new Problem("no result for the source of SOURCE_DATE_EPOCH");
  return newestFile(await backend.decompress(await readSmallFile(ref, filename)));
}
