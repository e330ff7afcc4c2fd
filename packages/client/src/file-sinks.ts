/** Where exported archives go on this machine. */
import { once } from "node:events";
import { lstatSync, mkdirSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { BuildError, codeOfNodeError, errorMessage } from "@kiln/base";
import { randomHex } from "@kiln/formats";
import type { FileSink } from "@kiln/session/client";

/**
 * Writes a file that appears when it's complete: until then its bytes lie beside it under another name. What exists
 * and is no regular file (a device, a pipe) is written directly.
 */
export async function openFileSink(path: string): Promise<FileSink> {
  mkdirSync(dirname(path), { recursive: true });
  const isDirect = isSpecial(path);
  const target = isDirect ? path : `${path}.tmp-${randomHex(6)}`;
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

function isSpecial(path: string): boolean {
  try {
    return !lstatSync(path).isFile();
  } catch {
    return false;
  }
}

function failed(what: string, path: string, error: unknown): BuildError {
  return new BuildError(codeOfNodeError(error), `failed to ${what} ${path}: ${errorMessage(error)}`, {
    cause: error,
  });
}
