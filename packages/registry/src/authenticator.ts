/** What logs in at a registry. An empty username makes `secret` an identity (refresh) token. */
export interface Credentials {
  readonly username: string;
  readonly secret: string;
}

/** What a bearer token is wanted for, from the registry's challenge. */
export interface TokenRequest {
  /** Host and port of the registry, as in its URL. */
  readonly host: string;
  readonly realm: string;
  readonly service: string;
  /** Sorted; `repository:<path>:<actions>`. */
  readonly scopes: readonly string[];
  readonly clientId: string;
}

/** A bearer token. */
export interface Token {
  readonly token: string;
  /** Seconds; 60 when the server doesn't say. */
  readonly expiresInS?: number | undefined;
  /** Milliseconds since the epoch; now when the server doesn't say. */
  readonly issuedAt?: number | undefined;
}

/**
 * Who we are to registries. The daemon implements it by asking the client's session, a client by reading its
 * credential store.
 *
 * Tokens are kept per authenticator object: two of them never share any.
 */
export interface Authenticator {
  /** Undefined: anonymous. `host` is the registry's, with `registry-1.docker.io` for Docker Hub. */
  credentials(host: string, signal?: AbortSignal): Promise<Credentials | undefined>;
  /**
   * Gets the token itself, so that the secret needn't leave the client. Undefined: it can't, and
   * {@link credentials} are asked for.
   */
  fetchToken?(request: TokenRequest, signal?: AbortSignal): Promise<Token | undefined>;
}

/** Nobody. */
export const anonymous: Authenticator = { credentials: () => Promise.resolve(undefined) };

/** The same credentials for the named hosts; anonymous elsewhere. */
export function fixedCredentials(byHost: Readonly<Record<string, Credentials>>): Authenticator {
  const known = new Map(Object.entries(byHost));
  return { credentials: (host) => Promise.resolve(known.get(host)) };
}
