/** `kilnd`, also under the name `buildkitd`. */
import { basename } from "node:path";
import { errorMessage } from "@kiln/base";
import { KILN_BUILDKIT_VERSION, KILN_PACKAGE, KILN_REVISION } from "@kiln/engine/version";
import { loadConfig } from "./config/config.ts";
import { helpText } from "./config/help.ts";

const program = basename(process.env["KILN_ARGV0"] ?? "kilnd");

async function main(): Promise<number> {
  const line = loadConfig(process.argv.slice(2), process.env);
  switch (line.kind) {
    case "version":
      process.stdout.write(`${program} ${KILN_PACKAGE} ${KILN_BUILDKIT_VERSION} ${KILN_REVISION}\n`);
      return 0;
    case "help":
      process.stdout.write(helpText(program));
      return 0;
    case "run": {
      const { requireRoot, runDaemon } = await import("./run-daemon.ts");
      requireRoot(process.geteuid?.() ?? 0);
      return await runDaemon(line.config);
    }
  }
}

process.umask(0);
main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${program}: ${errorMessage(error)}\n`);
    process.exit(1);
  },
);
