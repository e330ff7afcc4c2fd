import type { MessageInitShape } from "@bufbuild/protobuf";
import { Exporter, type ExporterRequest } from "@kiln/api/exporter";
import {
  type CheckPolicyRequestSchema,
  type CheckPolicyResponse,
  PolicyVerifier,
} from "@kiln/api/policysession";
import { isBuildError } from "@kiln/base";
import { callOn, type SessionCaller } from "./caller.ts";

/** Asks the client which exporters a finished result goes to. */
export async function findExporters(
  caller: SessionCaller,
  request: { readonly metadata: Readonly<Record<string, Uint8Array>>; readonly refs: readonly string[] },
  signal?: AbortSignal,
): Promise<readonly ExporterRequest[]> {
  const response = await caller.channel.unary(
    Exporter.method.findExporters,
    { metadata: { ...request.metadata }, refs: [...request.refs] },
    callOn(caller, { signal }),
  );
  return response.exporters;
}

/** Tells the client the answers of all exporters; one that doesn't want to know is left alone. */
export async function finalizeExport(
  caller: SessionCaller,
  response: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<void> {
  try {
    await caller.channel.unary(
      Exporter.method.finalizeExport,
      { exporterResponse: { ...response } },
      callOn(caller, { signal }),
    );
  } catch (error) {
    if (!isBuildError(error, "unimplemented") && !isBuildError(error, "unavailable")) throw error;
  }
}

/** Asks the client's policy about a source. */
export function checkPolicy(
  caller: SessionCaller,
  request: MessageInitShape<typeof CheckPolicyRequestSchema>,
  signal?: AbortSignal,
): Promise<CheckPolicyResponse> {
  return caller.channel.unary(PolicyVerifier.method.checkPolicy, request, callOn(caller, { signal }));
}
