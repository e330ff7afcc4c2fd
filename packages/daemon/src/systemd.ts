/** What a service manager says to the daemon and hears from it, by sd_notify(3) and sd_listen_fds(3). */
import { BuildError } from "@kiln/base";
import { closeOnExec, sendDatagram } from "@kiln/sys";
import type { Logger } from "./log.ts";

const FIRST_FD = 3;

type Env = Readonly<Record<string, string | undefined>>;

/** Tells the service manager of a state, when there is one that wants to know. */
export function notifySystemd(state: "READY=1" | "STOPPING=1", env: Env, log: Logger): void {
  const socket = env["NOTIFY_SOCKET"] ?? "";
  if (socket === "") return;
  try {
    sendDatagram(socket, new TextEncoder().encode(state));
  } catch (error) {
    log.warn(`could not notify systemd of ${state}`, error);
  }
}

/** Takes over the sockets that a service manager has opened; programs that the daemon starts don't get them. */
export class ActivatedSockets {
  readonly #count: number;

  constructor(env: Env, pid: number) {
    const count = Number(env["LISTEN_FDS"] ?? "");
    const isOurs = env["LISTEN_PID"] === String(pid);
    this.#count = isOurs && Number.isInteger(count) && count > 0 && count < 1024 ? count : 0;
    for (let fd = FIRST_FD; fd < FIRST_FD + this.#count; fd++) closeOnExec(fd);
  }

  /**
   * The socket of an `fd://` address: the first.
   *
   * @throws BuildError for a daemon that wasn't started with one, and for names of sockets.
   */
  fd(name: string): number {
    if (name !== "")
      throw new BuildError("unimplemented", `fd://${name}: not supported yet, only fd:// (the first socket)`);
    if (this.#count === 0) {
      throw new BuildError(
        "not_found",
        "no sockets found via socket activation: make sure the service was started by systemd",
      );
    }
    return FIRST_FD;
  }
}
