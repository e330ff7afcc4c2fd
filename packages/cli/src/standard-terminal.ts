import type { Terminal } from "./command/command.ts";

type Output = NodeJS.WriteStream & { fd: 1 | 2 };

const opened = new Map<"stdout" | "stderr", Output>();

/** This process's streams, each opened by its first use: that takes time, and standard input is seldom read. */
export function standardTerminal(): Terminal {
  return {
    get stdin() {
      return process.stdin;
    },
    get stdout() {
      return outputOf("stdout");
    },
    get stderr() {
      return outputOf("stderr");
    },
    env: process.env,
    cwd: () => process.cwd(),
  };
}

/** The output streams that were used. */
export function openedOutputs(): readonly NodeJS.WriteStream[] {
  return [...opened.values()];
}

/** A reader that goes away (`kiln … | head`) ends the program quietly. */
function outputOf(name: "stdout" | "stderr"): Output {
  const known = opened.get(name);
  if (known !== undefined) return known;
  const stream = process[name] as Output;
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(process.exitCode ?? 0);
  });
  opened.set(name, stream);
  return stream;
}
