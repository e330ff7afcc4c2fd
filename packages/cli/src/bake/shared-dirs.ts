/**
 * Directories that several targets read. Each is offered in one session for all of them, so that the daemon sees one
 * source: it reads the directory once, and steps that the targets have in common run once.
 */
import { dirname, resolve } from "node:path";
import type { BuildRequest } from "@kiln/bake";
import { type BuildkitClient, createSession } from "@kiln/client";
import { asRoot, FileSyncProvider, type SharedDir } from "@kiln/session/client";
import { isHttpUrl } from "../build/remote-url.ts";

/** What a target reads. */
type Reads = Pick<BuildRequest, "context" | "dockerfile" | "dockerfileInline" | "contexts">;

/** A session that offers each of its directories under a name. */
interface DirSession {
  readonly id: string;
  readonly dirs: Map<string, SharedDir>;
}

/** The sessions of one command. They end when this is disposed of. */
export class SharedDirs implements AsyncDisposable {
  readonly #users = new Map<string, number>();
  readonly #sessions = new Map<BuildkitClient, DirSession[]>();
  readonly #runs: Promise<void>[] = [];
  readonly #end = new AbortController();

  constructor(requests: readonly Reads[]) {
    for (const request of requests) {
      for (const key of keysOf(request)) this.#users.set(key, (this.#users.get(key) ?? 0) + 1);
    }
  }

  /**
   * Frontend attributes for those of a target's directories, by name, that other targets read, too. The daemon keeps
   * what it read under the key of the first target.
   */
  attrsFor(
    client: BuildkitClient,
    dirs: ReadonlyMap<string, string>,
    sharedKey: string,
  ): Map<string, string> {
    const attrs = new Map<string, string>();
    for (const [name, dir] of dirs) {
      if ((this.#users.get(keyOf(name, dir)) ?? 0) < 2) continue;
      attrs.set(
        `local-sessionid:${name}`,
        this.#sessionFor(client, { name, dir: resolve(dir), sharedKey }).id,
      );
    }
    return attrs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await Promise.all(this.#runs);
  }

  #sessionFor(
    client: BuildkitClient,
    { name, dir, sharedKey }: { readonly name: string; readonly dir: string; readonly sharedKey: string },
  ): DirSession {
    const sessions = this.#sessions.get(client) ?? [];
    this.#sessions.set(client, sessions);
    const known = sessions.find(({ dirs }) => dirs.get(name)?.dir === dir);
    if (known) return known;
    const session = sessions.find(({ dirs }) => !dirs.has(name)) ?? this.#open(client, sessions, sharedKey);
    session.dirs.set(name, { dir, map: asRoot });
    return session;
  }

  #open(client: BuildkitClient, sessions: DirSession[], sharedKey: string): DirSession {
    const dirs = new Map<string, SharedDir>();
    const session = createSession([new FileSyncProvider(dirs)], { sharedKey });
    // A session that breaks fails the builds that use it; they say so.
    this.#runs.push(session.run(client.channel, this.#end.signal).catch(() => undefined));
    const opened = { id: session.id, dirs };
    sessions.push(opened);
    return opened;
  }
}

/** What a request reads from directories that another one may name, too. */
function keysOf(request: Reads): Set<string> {
  const { context, dockerfile, dockerfileInline } = request;
  const keys = new Set([keyOf("context", context)]);
  if (dockerfileInline === undefined && dockerfile !== "-" && !isHttpUrl(dockerfile)) {
    keys.add(keyOf("dockerfile", dockerfile === "" ? context : dirname(dockerfile)));
  }
  for (const [name, value] of request.contexts) keys.add(keyOf(name, value));
  return keys;
}

function keyOf(name: string, dir: string): string {
  return `${name}\0${resolve(dir)}`;
}
