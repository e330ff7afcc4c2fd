import { Console } from "node:console";
import { Socket } from "node:net";
import { Duplex } from "node:stream";
import { BuildError } from "@kiln/base";

/**
 * The byte stream to the daemon that has started this process: its standard input and output.
 *
 * @throws BuildError `failed_precondition` when somebody else has started it.
 */
export function openStdio(): Duplex {
  protectStdout();
  const [input, output] = openPipes();
  const stream = new Duplex({
    read: () => {
      input.resume();
    },
    write: (chunk, _encoding, done) => {
      output.write(chunk, (error) => done(error));
    },
    final: (done) => {
      output.end(() => done());
    },
    destroy: (error, done) => {
      input.destroy();
      output.destroy();
      done(error);
    },
  });
  input.on("data", (chunk) => {
    if (!stream.push(chunk)) input.pause();
  });
  input.on("end", () => stream.push(null));
  for (const side of [input, output]) side.on("error", (error) => stream.destroy(error));
  return stream;
}

function openPipes(): [Socket, Socket] {
  try {
    return [
      new Socket({ fd: 0, readable: true, writable: false }),
      new Socket({ fd: 1, readable: false, writable: true }),
    ];
  } catch (error) {
    throw new BuildError(
      "failed_precondition",
      "this program is a frontend of BuildKit: an image of it runs for a line `# syntax=IMAGE`",
      { cause: error },
    );
  }
}

/** Sends to the standard error what a program would print: its standard output belongs to the protocol. */
function protectStdout(): void {
  Object.defineProperty(process, "stdout", { configurable: true, get: () => process.stderr });
  globalThis.console = new Console(process.stderr, process.stderr);
}
