import type { ClientCall, Codec } from "@kiln/grpc/client";
import type { Packet, PacketStream } from "../fsutil/index.ts";

/** A raw call seen as packets. */
export function packetStream(
  call: Pick<ClientCall<Uint8Array, Uint8Array>, "receive" | "send">,
  codec: Codec<Packet, Packet>,
): PacketStream {
  return {
    async receive() {
      const bytes = await call.receive();
      return bytes === undefined ? undefined : codec.decode(bytes);
    },
    send: (packet) => call.send(codec.encode(packet)),
  };
}
