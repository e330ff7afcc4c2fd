import { accessSync, constants, createReadStream, existsSync } from "node:fs";
import { request } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { BuildError, nodeReason, wrapError } from "@kiln/base";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { openUrl } from "./open-url.ts";

const SOCKET = "docker-desktop-build.sock";
/** Answers are lists of references. */
const MAX_ANSWER_BYTES = 1 << 20;

/** `kiln history import`: hands bundles to Docker Desktop's list of builds, like Buildx. */
export const historyImportCommand: CommandBody = {
  usage: "[OPTIONS] -",
  flags: [{ name: "file", short: "f", kind: "list", usage: "Import from a file path" }],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const socket = desktopSocket(ctx.terminal.env);
    const files = ctx.flags.list("file");
    for (const file of files) checkReadable(file);
    const urls: string[] = [];
    for (const file of files.length > 0 ? files : ["-"]) {
      const bundle = file === "-" ? ctx.terminal.stdin : createReadStream(file);
      for (const ref of await upload(socket, bundle, ctx.signal))
        urls.push(`docker-desktop://dashboard/build/.imported/_/${ref}`);
    }
    if (urls.length === 0) throw new BuildError("not_found", "no build records found in the bundle");
    for (const url of urls) ctx.terminal.stderr.write(`${url}\n`);
    await openUrl(urls[0] as string);
    return 0;
  },
};

function checkReadable(file: string): void {
  if (file === "-") return;
  try {
    accessSync(file, constants.R_OK);
  } catch (error) {
    throw new BuildError("not_found", `failed to open file ${file}: open ${file}: ${nodeReason(error)}`, {
      cause: error,
    });
  }
}

function desktopSocket(env: CommandContext["terminal"]["env"]): string {
  if (env["WSL_DISTRO_NAME"]) {
    const socket = `/mnt/wsl/docker-desktop/shared-sockets/host-services/${SOCKET}`;
    if (existsSync(socket)) return socket;
    throw new BuildError(
      "unimplemented",
      "Docker Desktop Build backend is not yet supported on WSL. Please run this command on Windows host instead.",
    );
  }
  return join(env["HOME"] || homedir(), ".docker/desktop", SOCKET);
}

async function upload(
  socketPath: string,
  bundle: NodeJS.ReadableStream,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const call = request({ socketPath, method: "POST", path: "/upload", host: "docker-desktop", signal });
  const answered = new Promise<{ readonly status: number; readonly body: string }>((resolve, reject) => {
    call.on("error", reject);
    call.on("response", (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        body += chunk;
        if (body.length > MAX_ANSWER_BYTES) response.destroy(new Error("answer is too long"));
      });
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    });
  });
  answered.catch(() => undefined);
  let answer: Awaited<typeof answered>;
  try {
    await pipeline(bundle, call, { signal });
    answer = await answered;
  } catch (error) {
    throw wrapError(error, "failed to send request, check if Docker Desktop is running");
  }
  if (answer.status !== 200)
    throw new BuildError("unavailable", `failed to import build: ${answer.body.trim()}`);
  try {
    const refs: unknown = JSON.parse(answer.body);
    if (Array.isArray(refs) && refs.every((ref) => typeof ref === "string")) return refs;
  } catch {
    // told below
  }
  throw new BuildError("data_loss", "failed to decode response");
}
