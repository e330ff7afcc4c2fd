export { Channel, type ChannelOptions, type Dial } from "./channel.ts";
export { type CallOptions, ClientCall } from "./client-call.ts";
export {
  bytesFieldCodec,
  type Codec,
  fieldSize,
  messageCodec,
  pathOf,
  rawCodec,
  writeField,
} from "./codec.ts";
export { type ClientTls, dialAddress } from "./dial.ts";
export { Metadata, type MetadataInit } from "./metadata.ts";
export { codeOfNumber, errorFromStatus, goCodeName, numberOfCode, statusFromError } from "./status.ts";
export { defaultMaxMessageBytes, type TransportOptions } from "./transport.ts";
