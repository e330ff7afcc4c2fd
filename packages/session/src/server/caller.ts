import { BuildError } from "@kiln/base";
import { type CallOptions, type Channel, Metadata, type MetadataInit } from "@kiln/grpc/client";

/** One client's session as the daemon sees it: a connection on which the client serves. */
export interface SessionCaller {
  readonly id: string;
  readonly sharedKey: string;
  readonly channel: Channel;
  /** Aborts when the session is gone. */
  readonly signal: AbortSignal;
  /** Whether the client has advertised `/package.Service/Method`; upper and lower case are alike. */
  supports(path: string): boolean;
}

/** Options of a call on a session: it ends with the session at the latest. */
export function callOn(
  caller: SessionCaller,
  opts: {
    readonly signal?: AbortSignal | undefined;
    readonly metadata?: MetadataInit;
    readonly timeoutMs?: number;
  } = {},
): CallOptions {
  return {
    signal: opts.signal ? AbortSignal.any([opts.signal, caller.signal]) : caller.signal,
    ...(opts.metadata === undefined ? {} : { metadata: Metadata.from(opts.metadata) }),
    ...(opts.timeoutMs === undefined ? {} : { timeoutMs: opts.timeoutMs }),
  };
}

/** Throws `unimplemented` unless the client serves the method. */
export function requireMethod(caller: SessionCaller, path: string): void {
  if (!caller.supports(path)) {
    throw new BuildError("unimplemented", `method ${path} not supported by the client`);
  }
}
