import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ExecMessage, ExecMessageSchema } from "@kiln/api/gateway";
import { BuildError } from "@kiln/base";
import type { ServerCall } from "@kiln/grpc";
import type { GatewayContainers } from "./gateway-containers.ts";
export async function execProcess(
  _containers: GatewayContainers,
  _call: ServerCall<ExecMessage, MessageInitShape<typeof ExecMessageSchema>>,
): Promise<void> {
  throw new BuildError("unimplemented", "exec");
}
