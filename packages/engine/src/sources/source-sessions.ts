import type { Authenticator, Credentials, Token, TokenRequest } from "@kiln/registry";

/** A socket that leads to a client's SSH agent, for as long as it isn't disposed of. */
export interface SshSocket extends AsyncDisposable {
  readonly path: string;
}

/** A content store that a client serves. */
export interface SessionContent {
  /** Size in bytes. @throws BuildError `not_found` */
  size(digest: string, signal: AbortSignal): Promise<number>;
  read(digest: string, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/**
 * What sources ask of the clients that need a build. `ids` are sessions in the order in which they are tried;
 * a session that is gone or doesn't serve the request is passed over. The composition root implements it on
 * the sessions of the daemon.
 */
export interface SourceSessions {
  /** Login at a registry; undefined when no session has one. */
  credentials(ids: readonly string[], host: string, signal?: AbortSignal): Promise<Credentials | undefined>;
  /** A token that the client gets itself; undefined when no session offers that. */
  fetchToken(ids: readonly string[], request: TokenRequest, signal?: AbortSignal): Promise<Token | undefined>;
  /** A secret; undefined when no session has it. */
  secret(ids: readonly string[], id: string, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** The store that the client serves as `oci:<storeId>`. @throws BuildError when no session is there. */
  content(ids: readonly string[], storeId: string, signal: AbortSignal): Promise<SessionContent>;
  /** The body of `http://buildkit-session/<path>` (`Upload.Pull`). */
  upload(ids: readonly string[], url: URL, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  /** @throws BuildError when no session forwards an agent under this id. */
  sshSocket(ids: readonly string[], id: string, signal: AbortSignal): Promise<SshSocket>;
}

const MAX_GROUPS = 256;

/**
 * Authenticators of groups of sessions. The same sessions get the same one, and so its tokens; others never
 * do.
 */
export class SessionAuthenticators {
  readonly #sessions: SourceSessions;
  readonly #byGroup = new Map<string, Authenticator>();

  constructor(sessions: SourceSessions) {
    this.#sessions = sessions;
  }

  /** The authenticator that asks these sessions. */
  of(ids: readonly string[]): Authenticator {
    const key = ids.join(",");
    let authenticator = this.#byGroup.get(key);
    if (authenticator) this.#byGroup.delete(key);
    else {
      const sessions = this.#sessions;
      authenticator = {
        credentials: (host, signal) => sessions.credentials(ids, host, signal),
        fetchToken: (request, signal) => sessions.fetchToken(ids, request, signal),
      };
    }
    this.#byGroup.set(key, authenticator);
    for (const oldest of this.#byGroup.keys()) {
      if (this.#byGroup.size <= MAX_GROUPS) break;
      this.#byGroup.delete(oldest);
    }
    return authenticator;
  }
}
