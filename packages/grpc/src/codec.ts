import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BuildError, errorMessage } from "@kiln/base";

/** How messages of a call become bytes and back. */
export interface Codec<In, Out> {
  /** Bytes of a message to send. */
  encode(message: Out): Uint8Array;
  /** Message of received bytes; throws `internal` for bytes that are none. */
  decode(bytes: Uint8Array): In;
}

/** Passes bytes as they are. */
export const rawCodec: Codec<Uint8Array, Uint8Array> = { encode: (m) => m, decode: (b) => b };

/** Reads messages of schema `input` and writes those of `output`. */
export function messageCodec<I extends DescMessage, O extends DescMessage>(
  input: I,
  output: O,
): Codec<MessageShape<I>, MessageInitShape<O>> {
  return {
    encode(message) {
      return toBinary(output, create(output, message));
    },
    decode(bytes) {
      try {
        return fromBinary(input, bytes);
      } catch (error) {
        throw new BuildError(
          "internal",
          `grpc: error unmarshalling ${input.typeName}: ${errorMessage(error)}`,
          {
            cause: error,
          },
        );
      }
    },
  };
}

/** The HTTP path of a method. */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
