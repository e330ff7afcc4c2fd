/** `kiln`: parses as little as possible, then loads the command that was asked for. */
import { exitWith } from "./exit.ts";
import { versionText } from "./version.ts";

async function main(argv: readonly string[]): Promise<void> {
  if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
    process.stdout.write(versionText);
  } else {
    const [{ runKiln }, { kilnCommands }] = await Promise.all([
      import("./kiln.ts"),
      import("./kiln-commands.ts"),
    ]);
    await exitWith(await runKiln(kilnCommands, argv));
  }
}

void main(process.argv.slice(2));
