import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { BuildError, errorMessage } from "@kiln/base";
import { type Codec, fieldSize, writeField } from "@kiln/grpc/client";
import { encodePath } from "@kiln/sys";
import { type Stat, textFromWire } from "./stat.ts";

/** What travels in a transfer. A `stat` packet without stat says that all entries were sent. */
export type Packet = (
  | { readonly type: "stat"; readonly stat: Stat | undefined }
  | { readonly type: "request"; readonly id: number }
  | { readonly type: "data"; readonly id: number; readonly data: Uint8Array }
  | { readonly type: "fin" }
  | { readonly type: "error"; readonly message: string }
) & {
  /** Size on the wire, noted by the codec; what progress counts. */
  wireBytes?: number;
};

const none = new Uint8Array(0);

/**
 * fsutil's packets as bytes. Written by hand because paths need not be UTF-8 (protobuf-es would replace what
 * isn't) and because a large context is a million of them.
 */
export const packetCodec: Codec<Packet, Packet> = {
  encode(packet) {
    const bytes = encodePacket(packet);
    packet.wireBytes = bytes.length;
    return bytes;
  },
  decode(bytes) {
    const packet = decodePacket(bytes);
    packet.wireBytes = bytes.length;
    return packet;
  },
};

function encodePacket(packet: Packet): Uint8Array {
  const w = new BinaryWriter();
  switch (packet.type) {
    case "stat":
      if (packet.stat !== undefined) w.tag(2, WireType.LengthDelimited).bytes(encodeStat(packet.stat));
      break;
    case "request":
      w.tag(1, WireType.Varint).uint32(1);
      if (packet.id !== 0) w.tag(3, WireType.Varint).uint32(packet.id);
      break;
    case "data":
      return encodeData(packet.id, packet.data);
    case "fin":
      w.tag(1, WireType.Varint).uint32(3);
      break;
    case "error":
      w.tag(1, WireType.Varint).uint32(4);
      w.tag(4, WireType.LengthDelimited).string(packet.message);
      break;
  }
  return w.finish();
}

/** The most frequent one, without a writer: type 2, the id, the data. */
function encodeData(id: number, data: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(8 + fieldSize(data.length));
  out[0] = 0x08;
  out[1] = 2;
  let at = 2;
  if (id !== 0) {
    out[at++] = 0x18;
    let rest = id;
    for (; rest > 0x7f; rest >>>= 7) out[at++] = (rest & 0x7f) | 0x80;
    out[at++] = rest;
  }
  return out.subarray(0, writeField(out, at, { tag: 0x22, data }));
}

/** The bytes of a `Stat` message. */
export function encodeStat(stat: Stat): Uint8Array {
  const w = new BinaryWriter();
  if (stat.path !== "") w.tag(1, WireType.LengthDelimited).bytes(encodePath(stat.path));
  if (stat.mode !== 0) w.tag(2, WireType.Varint).uint32(stat.mode);
  if (stat.uid !== 0) w.tag(3, WireType.Varint).uint32(stat.uid);
  if (stat.gid !== 0) w.tag(4, WireType.Varint).uint32(stat.gid);
  if (stat.size !== 0n) w.tag(5, WireType.Varint).int64(stat.size);
  if (stat.modTime !== 0n) w.tag(6, WireType.Varint).int64(stat.modTime);
  if (stat.linkname !== "") w.tag(7, WireType.LengthDelimited).bytes(encodePath(stat.linkname));
  if (stat.devmajor !== 0n) w.tag(8, WireType.Varint).int64(stat.devmajor);
  if (stat.devminor !== 0n) w.tag(9, WireType.Varint).int64(stat.devminor);
  for (const name of Object.keys(stat.xattrs).sort()) {
    w.tag(10, WireType.LengthDelimited).fork();
    w.tag(1, WireType.LengthDelimited).bytes(encodePath(name));
    w.tag(2, WireType.LengthDelimited).bytes(stat.xattrs[name] ?? none);
    w.join();
  }
  return w.finish();
}

function decodePacket(bytes: Uint8Array): Packet {
  try {
    return readPacket(bytes);
  } catch (error) {
    throw new BuildError("invalid_argument", `malformed packet: ${errorMessage(error)}`, { cause: error });
  }
}

function readPacket(bytes: Uint8Array): Packet {
  const r = new BinaryReader(bytes);
  let type = 0;
  let stat: Stat | undefined;
  let id = 0;
  let data: Uint8Array = none;
  while (r.pos < r.len) {
    const [field, wire] = r.tag();
    if (field === 1 && wire === WireType.Varint) type = r.int32();
    else if (field === 2 && wire === WireType.LengthDelimited) stat = decodeStat(r.bytes());
    else if (field === 3 && wire === WireType.Varint) id = r.uint32();
    else if (field === 4 && wire === WireType.LengthDelimited) data = r.bytes();
    else r.skip(wire, field);
  }
  switch (type) {
    case 0:
      return { type: "stat", stat };
    case 1:
      return { type: "request", id };
    case 2:
      return { type: "data", id, data };
    case 3:
      return { type: "fin" };
    case 4:
      return { type: "error", message: new TextDecoder().decode(data) };
    default:
      throw new BuildError("invalid_argument", `unknown packet type ${type}`);
  }
}

/** Reads the bytes of a `Stat` message. */
export function decodeStat(bytes: Uint8Array): Stat {
  const r = new BinaryReader(bytes);
  const stat: Stat = {
    path: "",
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0n,
    modTime: 0n,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: Object.create(null) as Record<string, Uint8Array>,
  };
  while (r.pos < r.len) {
    const [field, wire] = r.tag();
    if (field >= 2 && field <= 9 && field !== 7 && wire === WireType.Varint) readNumber(stat, field, r);
    else if (wire === WireType.LengthDelimited && (field === 1 || field === 7 || field === 10)) {
      const value = r.bytes();
      if (field === 1) stat.path = textFromWire(value);
      else if (field === 7) stat.linkname = textFromWire(value);
      else readXattr(stat, value);
    } else r.skip(wire, field);
  }
  return stat;
}

function readNumber(stat: Stat, field: number, r: BinaryReader): void {
  if (field === 2) stat.mode = r.uint32();
  else if (field === 3) stat.uid = r.uint32();
  else if (field === 4) stat.gid = r.uint32();
  else {
    const value = BigInt(r.int64());
    if (field === 5) stat.size = value;
    else if (field === 6) stat.modTime = value;
    else if (field === 8) stat.devmajor = value;
    else stat.devminor = value;
  }
}

function readXattr(stat: Stat, bytes: Uint8Array): void {
  const r = new BinaryReader(bytes);
  let name = "";
  let value: Uint8Array = none;
  while (r.pos < r.len) {
    const [field, wire] = r.tag();
    if (field === 1 && wire === WireType.LengthDelimited) name = textFromWire(r.bytes());
    else if (field === 2 && wire === WireType.LengthDelimited) value = r.bytes();
    else r.skip(wire, field);
  }
  stat.xattrs[name] = value;
}
