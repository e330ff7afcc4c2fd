/** Addresses of daemons, and how a byte stream to each is opened. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { BuildError, errorMessage } from "@kiln/base";
import { type ClientTls, type Dial, dialAddress } from "@kiln/grpc/client";

/** Where buildkitd listens unless told. */
export const DEFAULT_ADDRESS = "unix:///run/buildkit/buildkitd.sock";

/** Paths of PEM files for a TLS connection. Without any of them a connection is plain. */
export interface TlsFiles {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Name that the server's certificate must carry, the address's host by default. */
  readonly serverName?: string;
}

/** Reads the files' contents. @throws BuildError naming the file that can't be read. */
export function loadTls(files: TlsFiles): ClientTls | undefined {
  const { ca, cert, key, serverName } = files;
  if (!ca && !cert && !key && !serverName) return undefined;
  if (Boolean(cert) !== Boolean(key)) {
    throw new BuildError("invalid_argument", "a client certificate and its key must be given together");
  }
  return {
    ...(ca ? { ca: readPem(ca, "CA certificate") } : {}),
    ...(cert ? { cert: readPem(cert, "certificate") } : {}),
    ...(key ? { key: readPem(key, "key") } : {}),
    ...(serverName ? { serverName } : {}),
  };
}

/** The files of a directory: `ca.pem`, `cert.pem`, `key.pem`, or `ca.crt`, `tls.crt`, `tls.key`. */
export function tlsFilesIn(directory: string): TlsFiles {
  const find = (names: readonly string[]): string | undefined =>
    names
      .map((name) => join(directory, name))
      .find((path) => {
        try {
          readFileSync(path);
          return true;
        } catch {
          return false;
        }
      });
  const ca = find(["ca.pem", "ca.crt"]);
  const cert = find(["cert.pem", "tls.crt"]);
  const key = find(["key.pem", "tls.key"]);
  return { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
}

/**
 * How to reach an address: `unix://path`, `tcp://host:port`, `ssh://[user@]host[:port][/socket]` or
 * `docker-container://name` (both through the far side's `buildctl dial-stdio`).
 *
 * @throws BuildError `invalid_argument` for any other scheme, by name.
 */
export function dialTo(address: string, tls?: ClientTls): Dial {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(address)?.[1];
  switch (scheme) {
    case "unix":
    case "tcp":
      return dialAddress(address, tls);
    case "ssh":
      return dialCommand("ssh", sshArguments(address));
    case "docker-container": {
      const name = address.slice("docker-container://".length).replace(/[/?].*$/, "");
      return dialCommand("docker", ["exec", "-i", checkedWord(name, address), "buildctl", "dial-stdio"]);
    }
    default:
      throw new BuildError(
        "invalid_argument",
        scheme === undefined
          ? `invalid address ${JSON.stringify(address)}`
          : `addresses of kind ${scheme}:// aren't supported: ${address}`,
      );
  }
}

/** The host part of an address, for the `:authority` of requests. */
export function authorityOf(address: string): string {
  try {
    return new URL(address).host || "localhost";
  } catch {
    return "localhost";
  }
}

function sshArguments(address: string): string[] {
  let url: URL;
  try {
    url = new URL(address);
  } catch (error) {
    throw new BuildError("invalid_argument", `invalid address ${address}`, { cause: error });
  }
  if (url.password !== "") throw new BuildError("invalid_argument", "plain-text password is not supported");
  if (url.search !== "")
    throw new BuildError("invalid_argument", `extra query after the host: ${url.search}`);
  const args: string[] = [];
  if (url.username !== "") args.push("-l", checkedWord(decodeURIComponent(url.username), address));
  if (url.port !== "") args.push("-p", url.port);
  args.push("--", checkedWord(url.hostname, address), "buildctl");
  if (url.pathname !== "" && url.pathname !== "/") {
    args.push("--addr", `unix://${checkedPath(decodeURIComponent(url.pathname), address)}`);
  }
  return [...args, "dial-stdio"];
}

/** A word that no program takes for an option and no shell for anything but a word. */
function checkedWord(word: string, address: string): string {
  if (/^[A-Za-z0-9_.[\]:][A-Za-z0-9_.[\]:@-]*$/.test(word)) return word;
  throw new BuildError("invalid_argument", `invalid address ${address}`);
}

function checkedPath(path: string, address: string): string {
  if (/^\/[A-Za-z0-9_./@+,-]*$/.test(path)) return path;
  throw new BuildError("invalid_argument", `invalid socket path in ${address}`);
}

/** Bytes of a helper's error output that a message repeats. */
const MAX_ERROR_OUTPUT = 4096;

/** Opens the stream to a program's standard input and output. The program ends with the stream. */
export function dialCommand(command: string, args: readonly string[]): Dial {
  return async (signal) => {
    signal.throwIfAborted();
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
    const stream = childStream(child, command);
    const onAbort = (): void => {
      stream.destroy();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    stream.once("close", () => signal.removeEventListener("abort", onAbort));
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error) =>
        reject(
          new BuildError("unavailable", `failed to start ${command}: ${errorMessage(error)}`, {
            cause: error,
          }),
        ),
      );
    });
    return stream;
  };
}

function childStream(child: ChildProcess, command: string): Duplex {
  const { stdin, stdout, stderr } = child;
  if (!stdin || !stdout || !stderr) throw new Error("the child has no pipes");
  let errorOutput = "";
  stderr.on("data", (chunk: Buffer) => {
    errorOutput = (errorOutput + chunk.toString()).slice(-MAX_ERROR_OUTPUT);
  });
  const stream = new Duplex({
    read: () => stdout.resume(),
    write: (chunk, _encoding, done) => {
      stdin.write(chunk, (error) => done(error));
    },
    final: (done) => {
      stdin.end(() => done());
    },
    destroy: (error, done) => {
      stdin.destroy();
      child.kill();
      done(error);
    },
  });
  stdin.on("error", () => undefined);
  stdout.on("data", (chunk) => {
    if (!stream.push(chunk)) stdout.pause();
  });
  stdout.on("end", () => stream.push(null));
  child.once("close", (code) => {
    if (!code || stream.destroyed) return;
    const text = errorOutput.trim();
    stream.destroy(
      new BuildError(
        "unavailable",
        `command ${command} has exited with exit status ${code}${text && `, stderr=${text}`}`,
      ),
    );
  });
  return stream;
}

function readPem(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new BuildError("invalid_argument", `could not read ${what}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
