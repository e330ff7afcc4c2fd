/** Fetches a Dockerfile that is named by a URL, through the daemon: it may see what this machine doesn't. */
import { create, toBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema, type Op, OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { BuildkitClient } from "@kiln/client";
import { sha256 } from "@kiln/oci";
import type { SolveStatus } from "@kiln/progress";
import { MAX_DOCKERFILE_BYTES } from "./inputs.ts";

/** The Dockerfile at a URL. @throws BuildError when it's larger than Buildx allows. */
export async function fetchDockerfile(
  client: BuildkitClient,
  url: string,
  opts: { readonly onStatus: (status: SolveStatus) => void; readonly signal: AbortSignal },
): Promise<Uint8Array> {
  let data: Uint8Array | undefined;
  await client.solve({
    internal: true,
    onStatus: opts.onStatus,
    signal: opts.signal,
    drive: async (gateway) => {
      const result = await gateway.solve({ Definition: httpDefinition(url) });
      const ref = result?.result.case === "ref" ? result.result.value.id : "";
      data = await gateway.readFile(ref, "Dockerfile");
      return undefined;
    },
  });
  if (data === undefined) throw new BuildError("internal", `the daemon gave no Dockerfile for ${url}`);
  if (data.length > MAX_DOCKERFILE_BYTES) {
    throw new BuildError(
      "resource_exhausted",
      `Dockerfile ${url} bigger than allowed max size (${MAX_DOCKERFILE_BYTES / 1_048_576}MiB)`,
    );
  }
  return data;
}

function httpDefinition(url: string): Definition {
  const source = encodeOp(
    create(OpSchema, {
      op: { case: "source", value: { identifier: url, attrs: { "http.filename": "Dockerfile" } } },
      constraints: {},
    }),
  );
  const digest = sha256(source);
  const last = encodeOp(create(OpSchema, { inputs: [{ digest, index: 0n }] }));
  return create(DefinitionSchema, {
    def: [source, last],
    metadata: {
      [digest]: {
        description: { "llb.customname": `[internal] load ${url}` },
        caps: { "source.http": true },
      },
      [sha256(last)]: {},
    },
  });
}

function encodeOp(op: Op): Uint8Array {
  return toBinary(OpSchema, op);
}
