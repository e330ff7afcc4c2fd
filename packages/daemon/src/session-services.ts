import { BuildError, isBuildError, isCanceled } from "@kiln/base";
import type { SourceSessions, StepClients } from "@kiln/engine";
import {
  type ContentClient,
  checkSshAgent,
  contentOf,
  getSecret,
  mountSshSocket,
  pullUpload,
  SessionAuth,
  type SessionCaller,
  type SessionManager,
} from "@kiln/session";

/** What sources ask of clients, answered by their sessions. */
export function createSourceSessions(sessions: SessionManager): SourceSessions {
  return {
    credentials: async (ids, host, signal) => {
      if (ids.length === 0) return undefined;
      const found = await soft(new SessionAuth(sessions, ids).credentials(host, signal));
      if (found === undefined || (found.username === "" && found.secret === "")) return undefined;
      return { username: found.username, secret: found.secret };
    },
    fetchToken: async (ids, request, signal) => {
      if (ids.length === 0) return undefined;
      const auth = new SessionAuth(sessions, ids);
      const authority = await soft(auth.tokenAuthority(request.host, signal));
      if (authority === undefined) return undefined;
      const token = await auth.fetchToken(
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
        token: token.Token,
        expiresInS: Number(token.ExpiresIn),
        issuedAt: token.IssuedAt === 0n ? undefined : Number(token.IssuedAt) * 1000,
      };
    },
    secret: async (ids, id, signal) => {
      if (ids.length === 0) return undefined;
      try {
        return await sessions.any(ids, (caller) => getSecret(caller, id, signal), { signal });
      } catch (error) {
        if (isBuildError(error, "not_found") || isBuildError(error, "unimplemented")) return undefined;
        throw error;
      }
    },
    content: async (ids, storeId) => {
      const any = <T>(ask: (store: ContentClient) => Promise<T>, signal: AbortSignal): Promise<T> =>
        sessions.any(ids, (caller) => ask(contentOf(caller, `oci:${storeId}`)), { signal });
      return {
        size: async (digest, signal) => (await any((store) => store.info(digest, signal), signal)).sizeBytes,
        read: (digest, signal) => later(() => any((store) => begun(store.read(digest, {}, signal)), signal)),
      };
    },
    upload: (ids, url, signal) =>
      sessions.any(
        ids,
        (caller) => begun(pullUpload(caller, { host: url.host, path: url.pathname }, signal)),
        { signal },
      ),
    sshSocket: async (ids, id, signal) => {
      const key = id === "" ? "default" : id;
      const caller = await agentCaller(sessions, ids, { id: key, signal });
      return await mountSshSocket(caller, { id: key, uid: 0, gid: 0, mode: 0o700 });
    },
  };
}

/** What steps ask of clients, answered by their sessions. */
export function createStepClients(sessions: SessionManager): StepClients {
  return {
    secret: async (id, group, signal) => {
      try {
        return await sessions.any(group.ids(), (caller) => getSecret(caller, id, signal), { signal });
      } catch (error) {
        if (isBuildError(error, "not_found")) {
          throw new BuildError("not_found", `secret ${id}: not found`, { cause: error });
        }
        throw error;
      }
    },
    sshSocket: async (request, group, signal) => {
      try {
        const caller = await agentCaller(sessions, group.ids(), { id: request.id, signal });
        return await mountSshSocket(caller, request);
      } catch (error) {
        if (request.optional && !isCanceled(error)) return undefined;
        throw error;
      }
    },
  };
}

/** A stream whose first piece is there: whoever can't give it has said so. */
async function begun(source: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const pieces = source[Symbol.asyncIterator]();
  const first = await pieces.next();
  return (async function* () {
    try {
      for (let next = first; next.done !== true; next = await pieces.next()) yield next.value;
    } finally {
      await pieces.return?.();
    }
  })();
}

async function* later(open: () => Promise<AsyncIterable<Uint8Array>>): AsyncGenerator<Uint8Array> {
  yield* await open();
}

async function agentCaller(
  sessions: SessionManager,
  ids: readonly string[],
  wanted: { readonly id: string; readonly signal: AbortSignal },
): Promise<SessionCaller> {
  const { id, signal } = wanted;
  try {
    return await sessions.any(
      ids,
      async (caller) => {
        await checkSshAgent(caller, id, signal);
        return caller;
      },
      { signal },
    );
  } catch (error) {
    if (isCanceled(error)) throw error;
    if (isBuildError(error, "unimplemented")) {
      throw new BuildError("not_found", `no SSH key "${id}" forwarded from the client`, { cause: error });
    }
    throw error;
  }
}

/** Undefined instead of "no session has it": then nobody is logged in. */
async function soft<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isBuildError(error, "unimplemented") || isBuildError(error, "unknown")) return undefined;
    throw error;
  }
}
