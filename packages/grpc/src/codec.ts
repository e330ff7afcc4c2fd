import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
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

/**
 * Messages of which only one field of bytes matters, number 1 (BuildKit's BytesMessage), as those bytes. Does
 * without a copy when reading, and with one when writing.
 */
export const bytesFieldCodec: Codec<Uint8Array, Uint8Array> = {
  encode(data) {
    const out = Buffer.allocUnsafe(fieldSize(data.length));
    writeField(out, 0, { tag: bytesFieldTag, data });
    return out;
  },
  decode: readBytesField,
};

const bytesFieldTag = 0x0a;

/** Size of a field of `length` bytes with a one-byte tag. */
export function fieldSize(length: number): number {
  let size = 2 + length;
  for (let rest = length >>> 7; rest > 0; rest >>>= 7) size++;
  return length === 0 ? 0 : size;
}

/** Writes a field of bytes with a one-byte tag; empty ones are left out. Returns where it ends. */
export function writeField(
  out: Uint8Array,
  at: number,
  field: { readonly tag: number; readonly data: Uint8Array },
): number {
  const { tag, data } = field;
  if (data.length === 0) return at;
  let to = at;
  out[to++] = tag;
  let rest = data.length;
  for (; rest > 0x7f; rest >>>= 7) out[to++] = (rest & 0x7f) | 0x80;
  out[to++] = rest;
  out.set(data, to);
  return to + data.length;
}

function readBytesField(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return bytes;
  if (bytes[0] === bytesFieldTag) {
    let length = 0;
    let at = 1;
    for (let shift = 0; shift < 28 && at < bytes.length; shift += 7) {
      const byte = bytes[at++] as number;
      length |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (at + length === bytes.length) return bytes.subarray(at);
  }
  return readSlowly(bytes);
}

/** With other fields around it, or malformed. The last of several wins, as in protobuf. */
function readSlowly(bytes: Uint8Array): Uint8Array {
  try {
    const r = new BinaryReader(bytes);
    let data: Uint8Array = new Uint8Array(0);
    while (r.pos < r.len) {
      const [field, wire] = r.tag();
      if (field === 1 && wire === WireType.LengthDelimited) data = r.bytes();
      else r.skip(wire, field);
    }
    return data;
  } catch (error) {
    throw new BuildError("internal", `grpc: error unmarshalling: ${errorMessage(error)}`, { cause: error });
  }
}
