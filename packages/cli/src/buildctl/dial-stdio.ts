import { connect as connectSocket } from "node:net";
import { BuildError, errorMessage } from "@kiln/base";
import type { CommandBody } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { pipeRaw } from "../raw-pipe.ts";

/** `buildctl dial-stdio`: the daemon's socket on standard input and output. */
export const dialStdioCommand: CommandBody = {
  usage: "[options]",
  flags: [],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const address = ctx.flags.string("addr");
    const path = /^unix:\/\/(.+)$/.exec(address)?.[1];
    if (path === undefined) throw usageError(`invalid address ${address} (expected unix://)`);
    const socket = connectSocket({ path, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", (error) =>
        reject(new BuildError("unavailable", `dial unix ${path}: ${errorMessage(error)}`, { cause: error })),
      );
    });
    await pipeRaw(socket, ctx.terminal, ctx.signal);
    return 0;
  },
};
