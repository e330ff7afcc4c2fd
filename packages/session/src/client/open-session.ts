import type { Duplex } from "node:stream";
import { Control } from "@kiln/api/control";
import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { newId } from "@kiln/formats";
import { HealthStatus, openMessageDuplex, Router } from "@kiln/grpc";
import { bytesFieldCodec, type Channel, Metadata, pathOf } from "@kiln/grpc/client";
import { queryEscape, sessionHeaders } from "../headers.ts";
import type { Attachable } from "./attachable.ts";

/** How to open a session. */
export interface SessionOptions {
  /** A fresh one unless given. */
  readonly id?: string;
  /** Lets the daemon reuse what it has of a directory in later sessions with the same key. */
  readonly sharedKey?: string;
  readonly name?: string;
  readonly signal?: AbortSignal;
  /** Gets what attachables throw that is no BuildError. */
  readonly onBug?: (error: unknown, path: string) => void;
}

/** A running session. */
export interface ClientSession extends AsyncDisposable {
  readonly id: string;
  /** Resolves when the session has ended as it should, rejects with the daemon's error otherwise. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** Opens the byte stream of a session, telling the daemon the metadata. */
export type SessionDial = (metadata: Metadata) => Promise<SessionStream>;

/** A session's byte stream, and why it ended (undefined when as it should). */
export interface SessionStream {
  readonly stream: Duplex;
  readonly failure?: () => unknown;
}

/** Opens a session over a daemon's control connection; the attachables answer until it is closed. */
export function openSession(
  control: Channel,
  attachables: readonly Attachable[],
  opts: SessionOptions = {},
): Promise<ClientSession> {
  return openSessionOver((metadata) => dialControl(control, metadata, opts.signal), attachables, opts);
}

async function dialControl(
  control: Channel,
  metadata: Metadata,
  signal: AbortSignal | undefined,
): Promise<SessionStream> {
  const call = await control.callWith(pathOf(Control.method.session), bytesFieldCodec, { metadata, signal });
  let failure: unknown;
  const stream = openMessageDuplex({
    async receive() {
      try {
        return await call.receive();
      } catch (error) {
        failure = error;
        throw error;
      }
    },
    send: (data) => call.send(data),
    closeSend: () => call.closeSend(),
    cancel: () => call.cancel(),
  });
  return { stream, failure: () => failure };
}

/**
 * The same over any stream: Docker's engine opens one by an HTTP upgrade of `/session`, with the metadata as
 * headers.
 */
export async function openSessionOver(
  dial: SessionDial,
  attachables: readonly Attachable[],
  opts: SessionOptions = {},
): Promise<ClientSession> {
  const id = opts.id ?? newId();
  const router = new Router(opts.onBug === undefined ? {} : { onBug: opts.onBug });
  new HealthStatus().addTo(router);
  for (const attachable of attachables) attachable.addTo(router);
  const metadata = Metadata.from([[sessionHeaders.id, id], ...sharedKeyLines(opts.sharedKey ?? "")]);
  if (opts.name !== undefined) metadata.append(sessionHeaders.name, queryEscape(opts.name));
  for (const path of router.paths) metadata.append(sessionHeaders.method, path);
  const { stream, failure } = await dial(metadata);
  const connection = router.accept(stream, { transport: "session" });
  let closing = false;
  const closed = connection.closed.then(() => {
    const error = failure?.();
    if (error === undefined || closing) return;
    if (isBuildError(error)) throw error;
    throw new BuildError("unavailable", `session ${id} was lost: ${errorMessage(error)}`, { cause: error });
  });
  closed.catch(() => undefined);
  const close = async (): Promise<void> => {
    closing = true;
    await connection.close({ force: true });
  };
  return { id, closed, close, [Symbol.asyncDispose]: close };
}

function sharedKeyLines(key: string): [string, string][] {
  if (/^[\x20-\x7e]*$/.test(key)) return [[sessionHeaders.sharedKey, key]];
  return [
    [sessionHeaders.sharedKey, queryEscape(key)],
    [sessionHeaders.sharedKeyEncoded, "1"],
  ];
}
