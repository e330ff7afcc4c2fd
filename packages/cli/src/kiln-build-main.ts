/** `kiln build` alone, so that what it takes can be bundled without the other commands. */
import { buildCommand } from "./build/build-command.ts";
import { exitWith } from "./exit.ts";
import { runKiln } from "./kiln.ts";

const root = {
  name: "kiln",
  short: "Extended build capabilities with BuildKit",
  subcommands: [
    { name: "build", aliases: ["b"], short: "Start a build", body: () => Promise.resolve(buildCommand) },
  ],
};

void runKiln(root, process.argv.slice(2)).then(exitWith);
