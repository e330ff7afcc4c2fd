import { BuildError } from "@kiln/base";
import { isDigest } from "@kiln/oci";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { listAttachments } from "./attachments.ts";
import { type FoundRecord, findRecord, openNodes } from "./query.ts";

const TYPES: ReadonlyMap<string, readonly string[]> = new Map([
  ["index", ["application/vnd.oci.image.index.v1+json"]],
  ["manifest", ["application/vnd.oci.image.manifest.v1+json"]],
  ["image", ["application/vnd.oci.image.config.v1+json"]],
  ["provenance", ["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"]],
  ["sbom", ["https://spdx.dev/Document"]],
]);

/** `kiln history inspect attachment`. */
export const attachmentCommand: CommandBody = {
  usage: "[OPTIONS] [REF [DIGEST]]",
  flags: [
    { name: "platform", kind: "string", usage: "Platform of attachment" },
    { name: "type", kind: "string", usage: "Type of attachment" },
  ],
  minArgs: 0,
  maxArgs: 2,
  async run(ctx) {
    const [ref = "", digest = ""] = ctx.args;
    const [type, platform] = [ctx.flags.string("type"), ctx.flags.string("platform")];
    if (digest !== "" && !isDigest(digest)) throw usageError(`invalid digest ${JSON.stringify(digest)}`);
    if (digest === "" && type === "" && platform === "") {
      throw usageError("at least one of --type, --platform or DIGEST must be specified");
    }
    await using nodes = await openNodes(ctx);
    const found = await findRecord(nodes, ref, ctx.signal);
    if (digest !== "") {
      await copy(ctx, found, digest);
      return 0;
    }
    const types = TYPES.get(type) ?? [type];
    for (const attachment of await listAttachments(found)) {
      if (platform !== "" && attachment.platform !== platform) continue;
      if (type !== "" && !types.includes(attachment.type)) continue;
      await copy(ctx, found, attachment.digest);
      return 0;
    }
    throw new BuildError("not_found", `no matching attachment found for ref ${JSON.stringify(ref)}`);
  },
};

async function copy(ctx: CommandContext, { client }: FoundRecord, digest: string): Promise<void> {
  for await (const chunk of client.readContent(digest, { signal: ctx.signal }))
    ctx.terminal.stdout.write(chunk);
}
