/** Runs git to look at a repository; nothing here changes one. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { BuildError } from "@kiln/base";

const MAX_LIST_BYTES = 512 << 20;
const MAX_MESSAGE_BYTES = 64 << 10;
/** Larger files are hashed and forgotten; they are read again when they are wanted. */
const MAX_KEPT_BYTES = 1 << 20;
/** `missing` and `ambiguous` answers, and object names. */
const MAX_HEADER_BYTES = 4096;

/** What git is run with. */
export interface GitProgram {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

/** What git wrote. @throws BuildError with git's own message when it fails. */
export async function runGit(git: GitProgram, args: readonly string[], input = ""): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  await streamGit(git, args, {
    input,
    onData: (chunk) => {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_LIST_BYTES)
        throw new BuildError("resource_exhausted", `git ${args[0]} gives more than ${MAX_LIST_BYTES} bytes`);
      chunks.push(chunk);
    },
  });
  return Buffer.concat(chunks);
}

interface GitStreams {
  readonly input: string;
  readonly onData: (chunk: Buffer) => void;
}

function streamGit(git: GitProgram, args: readonly string[], streams: GitStreams): Promise<void> {
  const { cwd, env, signal } = git;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // Looking must not write the index, nor start the monitors that a repository's settings name.
  const options = ["--no-optional-locks", "-c", "core.fsmonitor=false", "--literal-pathspecs"];
  const child = spawn("git", [...options, ...args], { cwd, env: { ...env, LC_ALL: "C" }, signal });
  let message = "";
  let failure: unknown;
  child.stderr.on("data", (chunk: Buffer) => {
    if (message.length < MAX_MESSAGE_BYTES) message += chunk.toString();
  });
  child.stdout.on("data", (chunk: Buffer) => {
    try {
      if (failure === undefined) streams.onData(chunk);
    } catch (error) {
      failure = error;
      child.kill();
    }
  });
  child.on("error", (error: NodeJS.ErrnoException) => {
    if (signal.aborted) reject(signal.reason);
    else if (error.code === "ENOENT")
      reject(new BuildError("failed_precondition", "the program git isn't installed", { cause: error }));
    else reject(error);
  });
  child.on("close", (code) => {
    if (failure !== undefined) reject(failure);
    else if (code === 0) resolve();
    else reject(new BuildError("invalid_argument", message.trim() || `git ${args[0]}: exit code ${code}`));
  });
  // Git may end before it has read everything.
  child.stdin.on("error", () => undefined);
  child.stdin.end(streams.input);
  return promise;
}

/** A file of a commit. */
export interface GitBlob {
  readonly sizeBytes: number;
  /** SHA-256 of the bytes, in hexadecimal. */
  readonly hash: string;
  /** Undefined for a large one. */
  readonly data: Uint8Array | undefined;
}

/** Reads many objects at once. */
export async function readBlobs(git: GitProgram, ids: Iterable<string>): Promise<Map<string, GitBlob>> {
  const wanted = [...new Set(ids)];
  const reader = new BatchReader();
  if (wanted.length > 0) {
    await streamGit(git, ["cat-file", "--batch"], {
      input: wanted.map((id) => `${id}\n`).join(""),
      onData: (chunk) => reader.add(chunk),
    });
  }
  const missing = wanted.find((id) => !reader.blobs.has(id));
  if (missing !== undefined) throw new BuildError("not_found", `the repository lacks the object ${missing}`);
  return reader.blobs;
}

/** Takes the answers of `git cat-file --batch` apart: `<id> blob <size>`, the bytes, an empty line's end. */
class BatchReader {
  readonly blobs = new Map<string, GitBlob>();
  #header = "";
  #open:
    | {
        readonly id: string;
        readonly sizeBytes: number;
        left: number;
        readonly hash: ReturnType<typeof createHash>;
        readonly kept: Buffer[] | undefined;
      }
    | undefined;

  add(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; )
      at = this.#open === undefined ? this.#head(chunk, at) : this.#body(chunk, at);
  }

  #head(chunk: Buffer, at: number): number {
    const end = chunk.indexOf(10, at);
    this.#header += chunk.subarray(at, end < 0 ? chunk.length : end).toString("latin1");
    if (this.#header.length > MAX_HEADER_BYTES) throw new BuildError("internal", "git cat-file: bad answer");
    if (end < 0) return chunk.length;
    const found = /^([0-9a-f]+) blob (\d+)$/.exec(this.#header);
    this.#header = "";
    if (found !== null) {
      const sizeBytes = Number(found[2]);
      const kept = sizeBytes <= MAX_KEPT_BYTES ? [] : undefined;
      // One more for the line's end behind the bytes.
      this.#open = { id: found[1]!, sizeBytes, left: sizeBytes + 1, hash: createHash("sha256"), kept };
    }
    return end + 1;
  }

  #body(chunk: Buffer, at: number): number {
    const open = this.#open!;
    const end = Math.min(chunk.length, at + open.left);
    open.left -= end - at;
    const bytes = chunk.subarray(at, open.left === 0 ? end - 1 : end);
    open.hash.update(bytes);
    open.kept?.push(Buffer.from(bytes));
    if (open.left === 0) {
      const data = open.kept === undefined ? undefined : Buffer.concat(open.kept);
      this.blobs.set(open.id, { sizeBytes: open.sizeBytes, hash: open.hash.digest("hex"), data });
      this.#open = undefined;
    }
    return end;
  }
}
