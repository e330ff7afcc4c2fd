import { closeSync } from "node:fs";
import { call } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
/** Longest path in a socket address, with the zero that ends it. */
const MAX_PATH_BYTES = 108;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/**
 * Sends one message to a datagram socket; a path that begins with `@` is a name in the abstract space.
 *
 * @throws SysError when nobody listens there
 */
export function sendDatagram(path: string, message: Uint8Array): void {
  const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > MAX_PATH_BYTES) throw new RangeError(`socket path is too long: ${path}`);
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  const fd = call("socket", path, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  try {
    call("sendto", path, fd, message, message.length, MSG_NOSIGNAL, address, address.length);
  } finally {
    closeSync(fd);
  }
}

/** Keeps a file that this process was started with from the programs that it starts. */
export function closeOnExec(fd: number): void {
  call("fcntl", undefined, fd, F_SETFD, FD_CLOEXEC);
}
