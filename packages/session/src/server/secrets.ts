import { Secrets } from "@kiln/api/secrets";
import { BuildError, isBuildError } from "@kiln/base";
import { callOn, type SessionCaller } from "./caller.ts";

/** The value of a client's secret. Throws `not_found` when the client has none of that id. */
export async function getSecret(
  caller: SessionCaller,
  id: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  try {
    const response = await caller.channel.unary(
      Secrets.method.getSecret,
      { ID: id },
      callOn(caller, { signal }),
    );
    return response.data;
  } catch (error) {
    if (isBuildError(error, "unimplemented") || isBuildError(error, "not_found")) {
      throw new BuildError("not_found", `secret ${id}: not found`, { cause: error });
    }
    throw error;
  }
}
