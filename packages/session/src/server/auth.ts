import { createPublicKey, randomBytes, timingSafeEqual, verify } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Auth, type FetchTokenRequestSchema, type FetchTokenResponse } from "@kiln/api/auth";
import { BuildError, isBuildError } from "@kiln/base";
import { callOn, type SessionCaller } from "./caller.ts";
import type { SessionGroup, SessionManager } from "./manager.ts";

/** Longest time for one authentication question, all sessions together. */
const authTimeoutMs = 60_000;

/** Changes with every start of the daemon, so that keys don't identify clients for good. */
let knownSalt: Uint8Array | undefined;

function salt(): Uint8Array {
  knownSalt ??= randomBytes(32);
  return knownSalt;
}

/** A client's answer about a registry. An empty username makes the secret an identity token. */
export interface SessionCredentials {
  readonly sessionId: string;
  readonly username: string;
  readonly secret: string;
}

/** Asks the clients of a group about registries. Answers of clients that don't know the question are empty. */
export class SessionAuth {
  readonly #manager: SessionManager;
  readonly #group: SessionGroup;

  constructor(manager: SessionManager, group: SessionGroup) {
    this.#manager = manager;
    this.#group = group;
  }

  /** Username and secret for a registry host; both empty for none. */
  credentials(host: string, signal?: AbortSignal): Promise<SessionCredentials> {
    return this.#ask("resolving credentials from session", signal, async (caller, limit) => {
      const none: SessionCredentials = { sessionId: "", username: "", secret: "" };
      const response = await unless(
        ["unimplemented"],
        caller.channel.unary(Auth.method.credentials, { Host: host }, callOn(caller, { signal: limit })),
      );
      if (response === undefined) return none;
      return { sessionId: caller.id, username: response.Username, secret: response.Secret };
    });
  }

  /** Lets the client fetch a token, so that its password stays with it. */
  fetchToken(
    request: MessageInitShape<typeof FetchTokenRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FetchTokenResponse> {
    return this.#ask("fetching auth token from session", signal, (caller, limit) =>
      caller.channel.unary(Auth.method.fetchToken, request, callOn(caller, { signal: limit })),
    );
  }

  /**
   * The key that stands for the client's credentials of a host; undefined when the client has no such keys
   * and its password must be asked for.
   */
  tokenAuthority(
    host: string,
    signal?: AbortSignal,
  ): Promise<{ readonly sessionId: string; readonly publicKey: Uint8Array } | undefined> {
    return this.#ask("getting token authority from session", signal, async (caller, limit) => {
      const response = await unless(
        ["unimplemented", "unavailable"],
        caller.channel.unary(
          Auth.method.getTokenAuthority,
          { Host: host, Salt: salt() },
          callOn(caller, { signal: limit }),
        ),
      );
      if (response === undefined) return undefined;
      if (response.PublicKey.length !== 32) {
        throw new BuildError("unknown", `invalid pubkey length ${response.PublicKey.length}`);
      }
      return { sessionId: caller.id, publicKey: response.PublicKey };
    });
  }

  /** Whether a client of the group has the same credentials as the one whose key this is. */
  verifyTokenAuthority(
    host: string,
    publicKey: Uint8Array,
    signal?: AbortSignal,
  ): Promise<{ readonly sessionId: string; readonly verified: boolean }> {
    return this.#ask("verifying token authority from session", signal, async (caller, limit) => {
      const payload = randomBytes(32);
      const response = await unless(
        ["unimplemented"],
        caller.channel.unary(
          Auth.method.verifyTokenAuthority,
          { Host: host, Salt: salt(), Payload: payload },
          callOn(caller, { signal: limit }),
        ),
      );
      if (response === undefined) return { sessionId: "", verified: false };
      return { sessionId: caller.id, verified: isSigned(response.Signed, payload, publicKey) };
    });
  }

  async #ask<T>(
    what: string,
    signal: AbortSignal | undefined,
    fn: (caller: SessionCaller, limit: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new BuildError("deadline_exceeded", `${what}: context deadline exceeded`)),
      authTimeoutMs,
    );
    const limit = signal ? AbortSignal.any([signal, late.signal]) : late.signal;
    try {
      return await this.#manager.any(this.#group, (caller) => fn(caller, limit), { signal: limit });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Undefined instead of an error of one of these codes. */
async function unless<T>(
  codes: readonly ("unimplemented" | "unavailable")[],
  answer: Promise<T>,
): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (codes.some((code) => isBuildError(error, code))) return undefined;
    throw error;
  }
}

/** Fixed head of an ed25519 key in DER. */
const spkiHead = Buffer.from("302a300506032b6570032100", "hex");

/** NaCl's `sign` envelope: 64 bytes of signature, then the payload. */
function isSigned(signed: Uint8Array, payload: Uint8Array, publicKey: Uint8Array): boolean {
  if (signed.length !== 64 + payload.length || !timingSafeEqual(signed.subarray(64), payload)) return false;
  const key = createPublicKey({ key: Buffer.concat([spkiHead, publicKey]), format: "der", type: "spki" });
  return verify(null, payload, key, signed.subarray(0, 64));
}
