import { fromBinary, toJson } from "@bufbuild/protobuf";
import { OpSchema, SourceSchema } from "@kiln/api/pb";
import { type DefinitionSource, sourceMessage } from "@kiln/llb";

/** An op in protobuf's JSON form. */
export function opJson(bytes: Uint8Array): object {
  return toJson(OpSchema, fromBinary(OpSchema, bytes)) as object;
}

/** A source map in protobuf's JSON form. */
export function sourceJson(source: DefinitionSource): object {
  return toJson(SourceSchema, sourceMessage(source)) as object;
}
