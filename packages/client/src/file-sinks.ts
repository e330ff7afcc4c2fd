/** Where exported archives go on this machine. */
import { once } from "node:events";
import { lstatSync, readdirSync, rmSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BuildError, codeOfNodeError, nodeReason } from "@kiln/base";
import { randomHex } from "@kiln/formats";
import { type FileSink, makeDirs } from "@kiln/session/client";

/**
 * Writes a file that appears when it's complete: until then its bytes lie beside it under another name, which goes with
 * the next export to the same file when this process is killed. What exists and is no regular file (a device, a pipe) is
 * written directly.
 */
export async function openFileSink(path: string): Promise<FileSink> {
  makeDirs(dirname(path));
  const isDirect = isSpecial(path);
  if (!isDirect) removeLeftovers(path);
  const target = isDirect ? path : `${path}.tmp-${process.pid}-${randomHex(6)}`;
  let file: FileHandle;
  try {
    file = await open(target, "w", 0o666);
  } catch (error) {
    throw failed("open", path, error);
  }
  const drop = async (): Promise<void> => {
    await file.close().catch(() => undefined);
    if (!isDirect) await rm(target, { force: true });
  };
  return {
    async write(data) {
      try {
        await file.writeFile(data);
      } catch (error) {
        throw failed("write", path, error);
      }
    },
    async close() {
      try {
        await file.close();
        if (!isDirect) await rename(target, path);
      } catch (error) {
        await drop();
        throw failed("write", path, error);
      }
    },
    abort: drop,
  };
}

/** Writes to a stream that stays open, such as standard output. */
export function streamSink(stream: NodeJS.WritableStream): FileSink {
  return {
    async write(data) {
      if (!stream.write(data)) await once(stream, "drain");
    },
    close: async () => undefined,
    abort: async () => undefined,
  };
}

/** Removes what processes that are gone have begun to write in place of `path`. */
function removeLeftovers(path: string): void {
  const dir = dirname(path);
  const prefix = `${basename(path)}.tmp-`;
  for (const name of readdirSync(dir)) {
    const pid = name.startsWith(prefix) && /^(\d{1,9})-[0-9a-f]{12}$/.exec(name.slice(prefix.length))?.[1];
    if (pid && !isAlive(Number(pid))) rmSync(join(dir, name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

function isSpecial(path: string): boolean {
  try {
    return !lstatSync(path).isFile();
  } catch {
    return false;
  }
}

function failed(what: string, path: string, error: unknown): BuildError {
  return new BuildError(codeOfNodeError(error), `failed to ${what} ${path}: ${nodeReason(error)}`, {
    cause: error,
  });
}
