import { BuildError, isBuildError } from "@kiln/base";
import type { Credentials, Token, TokenRequest } from "@kiln/registry";
import {
  checkSshAgent,
  contentOf,
  getSecret,
  mountSshSocket,
  pullUpload,
  SessionAuth,
  type SessionCaller,
  type SessionManager,
} from "@kiln/session";
import type { SessionContent, SourceSessions, SshSocket } from "./source-sessions.ts";

/** {@link SourceSessions} on the sessions of a daemon. */
export class ClientSessions implements SourceSessions {
  readonly #manager: SessionManager;

  constructor(manager: SessionManager) {
    this.#manager = manager;
  }

  async credentials(
    ids: readonly string[],
    host: string,
    signal?: AbortSignal,
  ): Promise<Credentials | undefined> {
    if (ids.length === 0) return undefined;
    const { username, secret } = await new SessionAuth(this.#manager, ids).credentials(host, signal);
    return secret === "" ? undefined : { username, secret };
  }

  async fetchToken(
    ids: readonly string[],
    request: TokenRequest,
    signal?: AbortSignal,
  ): Promise<Token | undefined> {
    if (ids.length === 0) return undefined;
    const auth = new SessionAuth(this.#manager, ids);
    if ((await auth.tokenAuthority(request.host, signal)) === undefined) return undefined;
    const response = await auth.fetchToken(
      {
        ClientID: request.clientId,
        Host: request.host,
        Realm: request.realm,
        Service: request.service,
        Scopes: [...request.scopes],
      },
      signal,
    );
    return {
      token: response.Token,
      expiresInS: Number(response.ExpiresIn),
      ...(response.IssuedAt === 0n ? {} : { issuedAt: Number(response.IssuedAt) * 1000 }),
    };
  }

  async secret(ids: readonly string[], id: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    if (ids.length === 0) return undefined;
    try {
      return await this.#any(ids, (caller) => getSecret(caller, id, signal), signal);
    } catch (error) {
      // A client that has left has no secrets any more.
      if (isBuildError(error, "not_found") || isBuildError(error, "unavailable")) return undefined;
      throw error;
    }
  }

  content(ids: readonly string[], storeId: string, signal: AbortSignal): Promise<SessionContent> {
    signal.throwIfAborted();
    const owners = new Map<string, SessionCaller>();
    const size = async (digest: string, limit: AbortSignal): Promise<number> =>
      this.#any(
        ids,
        async (caller) => {
          const { sizeBytes } = await contentOf(caller, storeId).info(digest, limit);
          owners.set(digest, caller);
          return sizeBytes;
        },
        limit,
      );
    return Promise.resolve({
      size,
      async *read(digest, limit) {
        if (!owners.has(digest)) await size(digest, limit);
        yield* contentOf(owners.get(digest)!, storeId).read(digest, {}, limit);
      },
    });
  }

  upload(ids: readonly string[], url: URL, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const target = { host: url.host, path: url.pathname };
    return this.#any(ids, (caller) => Promise.resolve(pullUpload(caller, target, signal)), signal);
  }

  sshSocket(ids: readonly string[], id: string, signal: AbortSignal): Promise<SshSocket> {
    const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, mode: 0o700 };
    return this.#any(
      ids,
      async (caller) => {
        try {
          await checkSshAgent(caller, id, signal);
        } catch (error) {
          if (!isBuildError(error, "unimplemented")) throw error;
          const message = `no SSH key ${JSON.stringify(id)} forwarded from the client`;
          throw new BuildError("not_found", message, { cause: error });
        }
        return mountSshSocket(caller, { id, ...own });
      },
      signal,
    );
  }

  #any<T>(
    ids: readonly string[],
    fn: (caller: SessionCaller) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    return this.#manager.any(ids, fn, { signal });
  }
}
