/** Apart from its only user, since the descriptor of descriptors takes long to load. */
import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** The bytes of a descriptor that protobuf-es has made. */
export function librarysBytes(file: DescFile): Uint8Array {
  return toBinary(FileDescriptorProtoSchema, file.proto);
}
