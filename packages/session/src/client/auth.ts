import { createHmac, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { Auth, type FetchTokenRequest } from "@kiln/api/auth";
import { BuildError, wrapError } from "@kiln/base";
import type { Router } from "@kiln/grpc/server";
import { isTrue } from "../headers.ts";
import type { Attachable } from "./attachable.ts";
import {
  fetchTokenByGet,
  fetchTokenByPost,
  type HostTls,
  type Token,
  TokenStatusError,
} from "./registry-token.ts";
import { TokenSeeds } from "./token-seeds.ts";

/** What is known about a registry; all empty for nothing. */
export interface RegistryLogin {
  readonly username?: string;
  readonly password?: string;
  /** A refresh token, used instead of name and password. */
  readonly identityToken?: string;
  /** A bearer token that is sent as it is. */
  readonly registryToken?: string;
}

/** How an {@link AuthProvider} finds its answers. */
export interface AuthOptions {
  /** Called for each question; caching is the caller's affair. One call at a time. */
  readonly login: (host: string, scopes: readonly string[]) => Promise<RegistryLogin>;
  /** Folder for the seeds of the client's token keys (the docker config folder). */
  readonly seedDir: string;
  readonly tls?: ((host: string) => HostTls | undefined) | undefined;
  /** Told once per subject, for progress output: `[auth] sharing credentials for <host>` and the like. */
  readonly onUse?: ((text: string) => void) | undefined;
}

/** Lifetime of a token whose server names none. Source: the token protocol's default. */
const defaultExpirySeconds = 60;

/** Answers the daemon's questions about registries. */
export class AuthProvider implements Attachable {
  readonly #opts: AuthOptions;
  readonly #seeds: TokenSeeds;
  readonly #told = new Set<string>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(opts: AuthOptions) {
    this.#opts = opts;
    this.#seeds = new TokenSeeds(opts.seedDir);
  }

  addTo(router: Router): void {
    router.add(Auth, {
      credentials: async ({ Host }) => {
        const credentials = credentialsOf(await this.#login(Host, []));
        if (credentials.Secret !== "") this.#tell(`[auth] sharing credentials for ${Host}`);
        return credentials;
      },
      fetchToken: (request, ctx) => this.#fetchToken(request, ctx.signal),
      getTokenAuthority: async ({ Host, Salt }) => ({ PublicKey: publicBytes(await this.#key(Host, Salt)) }),
      verifyTokenAuthority: async ({ Host, Payload, Salt }) => {
        const signature = sign(null, Payload, await this.#key(Host, Salt));
        return { Signed: Buffer.concat([signature, Payload]) };
      },
    });
  }

  /** Credential helpers don't like to be asked twice at the same time. */
  #login(host: string, scopes: readonly string[]): Promise<RegistryLogin> {
    const answer = this.#queue.then(() => this.#opts.login(host, scopes));
    this.#queue = answer.catch(() => undefined);
    return answer;
  }

  async #fetchToken(request: FetchTokenRequest, signal: AbortSignal) {
    const login = await this.#login(request.Host, request.Scopes);
    if (login.registryToken) return tokenResponse({ token: login.registryToken });
    const { Username, Secret } = credentialsOf(login);
    const ask = {
      realm: request.Realm,
      service: request.Service,
      scopes: request.Scopes,
      username: Username,
      secret: Secret,
      tls: this.#opts.tls?.(request.Host),
      signal,
    };
    if (Secret === "") {
      try {
        return tokenResponse(await fetchTokenByGet(ask));
      } catch (error) {
        throw wrapError(error, "failed to fetch anonymous token");
      }
    }
    const scopes = request.Scopes.map((s) => s.replace(/^repository:/, "")).join(" ");
    this.#tell(`[auth] ${scopes} token for ${request.Host}`);
    try {
      return tokenResponse(await fetchTokenByPost(ask));
    } catch (error) {
      if (!needsGet(error, Username)) throw wrapError(error, "failed to fetch oauth token");
    }
    try {
      return tokenResponse(await fetchTokenByGet(ask));
    } catch (error) {
      throw wrapError(error, "failed to fetch oauth token");
    }
  }

  async #key(host: string, salt: Uint8Array): Promise<KeyObject> {
    if (isTrue(process.env.BUILDKIT_NO_CLIENT_TOKEN)) {
      throw new BuildError("unavailable", "client side tokens disabled");
    }
    const { Secret } = credentialsOf(await this.#login(host, []));
    const mac = createHmac("sha256", salt);
    if (Secret !== "") mac.update(await this.#seeds.get(host));
    return createPrivateKey({ key: Buffer.concat([pkcs8Head, mac.digest()]), format: "der", type: "pkcs8" });
  }

  #tell(text: string): void {
    if (this.#told.has(text)) return;
    this.#told.add(text);
    this.#opts.onUse?.(text);
  }
}

/** Registries that know no POST answer so. */
function needsGet(error: unknown, username: string): boolean {
  if (!(error instanceof TokenStatusError)) return false;
  return (error.status === 405 && username !== "") || error.status === 404 || error.status === 401;
}

function credentialsOf(login: RegistryLogin): { Username: string; Secret: string } {
  if (login.identityToken) return { Username: "", Secret: login.identityToken };
  return { Username: login.username ?? "", Secret: login.password ?? "" };
}

function tokenResponse(token: Token) {
  return {
    Token: token.token,
    ExpiresIn: BigInt(token.expiresInSeconds || defaultExpirySeconds),
    ...(token.issuedAt === undefined
      ? {}
      : { IssuedAt: BigInt(Math.floor(token.issuedAt.getTime() / 1000)) }),
  };
}

/** Fixed head of an ed25519 private key in DER; the seed follows. */
const pkcs8Head = Buffer.from("302e020100300506032b657004220420", "hex");

function publicBytes(key: KeyObject): Uint8Array {
  return createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
}
