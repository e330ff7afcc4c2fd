import { chmodSync, chownSync, unlinkSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { BuildError, errorMessage } from "@kiln/base";
import type { Router } from "./router.ts";
import type { Peer } from "./server-call.ts";

/** Certificates of a server, as PEM texts. With `clientCa` clients must have a certificate of that authority. */
export interface ServerTls {
  readonly cert: string | Uint8Array;
  readonly key: string | Uint8Array;
  readonly clientCa?: string | Uint8Array;
}

/** Where to listen. A socket file that exists is replaced; `port` 0 takes a free one. */
export type ListenAddress =
  | {
      readonly kind: "unix";
      readonly path: string;
      readonly mode?: number;
      readonly uid?: number;
      readonly gid?: number;
    }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly tls?: ServerTls }
  /** A listening socket that this process was started with. */
  | { readonly kind: "fd"; readonly fd: number; readonly tls?: ServerTls };

/** A socket that a {@link Router} serves. */
export interface Listener extends AsyncDisposable {
  /** The address as `unix:///path` or `tcp://host:port`. */
  readonly address: string;
  /** Takes no more connections; those that are open stay with the router. */
  close(): Promise<void>;
}

/** Longest time that a peer may take for the TLS handshake. */
const handshakeTimeoutMs = 20_000;

/** Serves `router` on a socket. Fails with `unavailable` when the address cannot be taken. */
export async function listen(router: Router, address: ListenAddress): Promise<Listener> {
  const server =
    address.kind !== "unix" && address.tls ? tlsServer(router, address.tls) : plainServer(router, address);
  if (address.kind === "unix") removeSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(new BuildError("unavailable", `failed to listen: ${errorMessage(error)}`, { cause: error })),
    );
    if (address.kind === "unix") listenUnix(server, address, resolve);
    else if (address.kind === "fd") server.listen({ fd: address.fd }, resolve);
    else server.listen({ host: address.host, port: address.port }, resolve);
  });
  server.on("error", () => undefined);
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close();
      if (address.kind === "unix") removeSocket(address.path);
      resolve();
    });
  return { address: addressText(server, address), close, [Symbol.asyncDispose]: close };
}

function listenUnix(server: Server, address: ListenAddress & { kind: "unix" }, done: () => void): void {
  // Nobody else may connect between bind and chmod.
  const before = process.umask(0o177);
  try {
    server.listen({ path: address.path }, () => {
      if (address.uid !== undefined || address.gid !== undefined) {
        chownSync(address.path, address.uid ?? -1, address.gid ?? -1);
      }
      chmodSync(address.path, address.mode ?? 0o660);
      done();
    });
  } finally {
    process.umask(before);
  }
}

function plainServer(router: Router, address: ListenAddress): Server {
  return createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => undefined);
    router.accept(socket, peerOf(address.kind, socket));
  });
}

function tlsServer(router: Router, tls: ServerTls): Server {
  const server = createTlsServer({
    cert: Buffer.from(tls.cert),
    key: Buffer.from(tls.key),
    minVersion: "TLSv1.2",
    ALPNProtocols: ["h2"],
    handshakeTimeout: handshakeTimeoutMs,
    noDelay: true,
    ...(tls.clientCa === undefined
      ? {}
      : { ca: Buffer.from(tls.clientCa), requestCert: true, rejectUnauthorized: true }),
  });
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  server.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => undefined);
    const name = tls.clientCa === undefined ? undefined : socket.getPeerCertificate().subject?.CN;
    router.accept(socket, {
      ...peerOf("tls", socket),
      ...(typeof name === "string" ? { certificateName: name } : {}),
    });
  });
  return server;
}

function peerOf(transport: string, socket: Socket): Peer {
  const host = socket.remoteAddress;
  return host === undefined ? { transport } : { transport, address: `${host}:${socket.remotePort}` };
}

function removeSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new BuildError("unavailable", `cannot replace ${path}: ${errorMessage(error)}`, { cause: error });
    }
  }
}

function addressText(server: Server, address: ListenAddress): string {
  if (address.kind === "unix") return `unix://${address.path}`;
  if (address.kind === "fd") return `fd://${address.fd}`;
  const { port } = server.address() as AddressInfo;
  return `tcp://${address.host.includes(":") ? `[${address.host}]` : address.host}:${port}`;
}
