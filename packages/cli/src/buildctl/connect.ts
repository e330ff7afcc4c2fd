import { BuildError } from "@kiln/base";
import { BuildkitClient, loadTls, type TlsFiles, tlsFilesIn } from "@kiln/client";
import type { CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";

/** Connects to the daemon that buildctl's global flags name. */
export async function connect(ctx: CommandContext): Promise<BuildkitClient> {
  const { flags } = ctx;
  const address = flags.string("addr");
  const tls = loadTls(tlsFiles(ctx, address));
  const seconds = Number(flags.string("timeout"));
  if (!Number.isInteger(seconds)) {
    throw usageError(`invalid value ${JSON.stringify(flags.string("timeout"))} for flag -timeout`);
  }
  const waitMs = seconds > 0 ? seconds * 1000 : 5000;
  return BuildkitClient.connect(address, {
    signal: ctx.signal,
    ...(tls === undefined ? {} : { tls }),
    ...(flags.bool("wait") ? { waitMs } : {}),
  });
}

function tlsFiles(ctx: CommandContext, address: string): TlsFiles {
  const { flags } = ctx;
  const [ca, cert, key] = ["tlscacert", "tlscert", "tlskey"].map((name) => flags.string(name)) as [
    string,
    string,
    string,
  ];
  const dir = flags.string("tlsdir");
  let files: TlsFiles = { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
  if (dir !== "") {
    if (ca || cert || key) {
      throw usageError("cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time");
    }
    files = tlsFilesIn(dir);
    const missing = [
      [files.ca, "ca.pem or ca.crt"],
      [files.cert, "cert.pem or tls.crt"],
      [files.key, "key.pem or tls.key"],
    ].find(([file]) => file === undefined);
    if (missing) {
      throw new BuildError("not_found", `directory did not contain one of the needed files: ${missing[1]}`);
    }
  }
  if (Object.keys(files).length === 0) return {};
  return { ...files, serverName: flags.string("tlsservername") || hostOf(address) };
}

function hostOf(address: string): string {
  try {
    return new URL(address).hostname;
  } catch {
    return "";
  }
}
