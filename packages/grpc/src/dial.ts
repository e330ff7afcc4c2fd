import { connect as connectNet, isIP, type Socket } from "node:net";
import { checkServerIdentity, connect as connectTls } from "node:tls";
import { BuildError, errorMessage } from "@kiln/base";
import type { Dial } from "./channel.ts";

/** Certificates of a client, as PEM texts. */
export interface ClientTls {
  /** Trusted roots instead of the system's. */
  readonly ca?: string | Uint8Array;
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  /** Name that the server's certificate must carry, when it isn't the host. */
  readonly serverName?: string;
}

/**
 * Dials `unix:///path` or `tcp://host:port`, the latter with TLS when certificates are given. Other schemes
 * are refused by name (`invalid_argument`): they need a driver.
 */
export function dialAddress(address: string, tls?: ClientTls): Dial {
  const unix = /^unix:\/\/(.+)$/.exec(address);
  if (unix) return (signal) => opened(connectNet({ path: unix[1] as string }), "connect", signal);
  const tcp = /^tcp:\/\/(?:\[([0-9a-fA-F:.%]+)\]|([^:/]+)):(\d{1,5})\/?$/.exec(address);
  if (!tcp) throw new BuildError("invalid_argument", `cannot dial ${JSON.stringify(address)}`);
  const host = (tcp[1] ?? tcp[2]) as string;
  const port = Number(tcp[3]);
  if (!tls) {
    return (signal) => {
      const socket = connectNet({ host, port });
      socket.setNoDelay(true);
      return opened(socket, "connect", signal);
    };
  }
  const name = tls.serverName ?? host;
  return (signal) => {
    const socket = connectTls({
      host,
      port,
      ALPNProtocols: ["h2"],
      minVersion: "TLSv1.2",
      // An address can't be sent as a server name; the certificate must carry it all the same.
      servername: isIP(name) === 0 ? name : "",
      checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate),
      ...(tls.ca === undefined ? {} : { ca: Buffer.from(tls.ca) }),
      ...(tls.cert === undefined ? {} : { cert: Buffer.from(tls.cert) }),
      ...(tls.key === undefined ? {} : { key: Buffer.from(tls.key) }),
    });
    socket.setNoDelay(true);
    return opened(socket, "secureConnect", signal);
  };
}

function opened<S extends Socket>(
  socket: S,
  event: "connect" | "secureConnect",
  signal: AbortSignal,
): Promise<S> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", (error) => {
      signal.removeEventListener("abort", onAbort);
      reject(new BuildError("unavailable", `connection error: ${errorMessage(error)}`, { cause: error }));
    });
    socket.once(event, () => {
      signal.removeEventListener("abort", onAbort);
      resolve(socket);
    });
  });
}
