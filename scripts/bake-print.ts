// Evaluates a bake definition and prints it: `node scripts/bake-print.ts [-f file] [--set …] [--list …] [target…]`.
// For comparing evaluation with other tools; `kiln bake` is the real command.
import { readFileSync } from "node:fs";
import { runCommand } from "../packages/bake/src/testing/command.ts";
import { nodeBakeHost } from "../packages/cli/src/bake-host.ts";

const { code, stdout, stderr } = runCommand(process.argv.slice(2), nodeBakeHost(), () => readFileSync(0));
process.stdout.write(stdout);
process.stderr.write(stderr);
process.exitCode = code;
