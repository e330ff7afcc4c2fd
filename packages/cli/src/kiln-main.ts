/** `kiln`: parses as little as possible, then loads the command that was asked for. */
import { exitWith } from "./exit.ts";
import { REVISION, VERSION } from "./version.ts";

async function main(argv: readonly string[]): Promise<void> {
  if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
    process.stdout.write(`kiln ${VERSION}${REVISION === "" ? "" : ` ${REVISION}`}\n`);
  } else {
    const { runKiln } = await import("./kiln.ts");
    await exitWith(await runKiln(argv));
  }
}

void main(process.argv.slice(2));
