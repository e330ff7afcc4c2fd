import type { CommandBody } from "./command/command.ts";
import { REVISION, VERSION } from "./version.ts";

/** `kiln version`: one line, as `buildx version` has it. */
export const versionCommand: CommandBody = {
  usage: "",
  flags: [],
  minArgs: 0,
  maxArgs: 0,
  hidesBuilder: true,
  run(ctx) {
    ctx.terminal.stdout.write(`kiln ${VERSION} ${REVISION}\n`);
    return Promise.resolve(0);
  },
};
