import { Console } from "node:console";
import { Socket } from "node:net";
import { Duplex } from "node:stream";

/** The byte stream to the daemon that has started this process: its standard input and output. */
export function openStdio(): Duplex {
  protectStdout();
  const input = new Socket({ fd: 0, readable: true, writable: false });
  const output = new Socket({ fd: 1, readable: false, writable: true });
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

/** Sends to the standard error what a program would print: its standard output belongs to the protocol. */
function protectStdout(): void {
  Object.defineProperty(process, "stdout", { configurable: true, get: () => process.stderr });
  globalThis.console = new Console(process.stderr, process.stderr);
}
