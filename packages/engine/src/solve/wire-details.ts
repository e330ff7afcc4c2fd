import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { clone, create, toJson } from "@bufbuild/protobuf";
import {
  FrontendCapSchema,
  FrontendSchema,
  ProvenanceMaterialsIncompleteSchema,
  SolveSchema,
  SourceSchema,
  SubrequestSchema,
  VertexSchema,
} from "@kiln/api/errdefs";
import type { Range, SourceInfo } from "@kiln/api/pb";
import { redactUrls, type WireDetail } from "@kiln/base";
import { goJsonText, goStruct } from "../cache-digest/go-json.ts";

const PREFIX = "github.com/moby/buildkit/";

function detail<Desc extends DescMessage>(
  name: string,
  schema: Desc,
  message: MessageShape<Desc>,
): WireDetail {
  return {
    typeUrl: `${PREFIX}${name}+json`,
    value: new TextEncoder().encode(goJsonText(goStruct(schema, message))),
  };
}

/** The vertex that failed, by its digest in the client's definition. */
export function vertexDetail(digest: string): WireDetail {
  return detail("errdefs.Vertex", VertexSchema, create(VertexSchema, { digest }));
}

/** Where in a user's file a failing vertex comes from. */
export function sourceDetail(info: SourceInfo, ranges: readonly Range[]): WireDetail {
  return detail("errdefs.Source", SourceSchema, create(SourceSchema, { info, ranges: [...ranges] }));
}

/** The frontend that failed. */
export function frontendDetail(name: string, source: string): WireDetail {
  return detail("errdefs.Frontend", FrontendSchema, create(FrontendSchema, { name, source }));
}

/** A capability that a frontend doesn't have. */
export function frontendCapDetail(name: string): WireDetail {
  return detail("errdefs.FrontendCap", FrontendCapSchema, create(FrontendCapSchema, { name }));
}

/** A request that the frontend doesn't know. */
export function subrequestDetail(name: string): WireDetail {
  return detail("errdefs.Subrequest", SubrequestSchema, create(SubrequestSchema, { name }));
}

/**
 * What a client needs to look into a failed op; written as protobuf's own JSON, unlike the others. It's kept with the
 * record of the build, so addresses of sources go without their passwords.
 */
export function solveDetail(message: MessageShape<typeof SolveSchema>): WireDetail {
  return {
    typeUrl: `${PREFIX}errdefs.Solve+json`,
    value: new TextEncoder().encode(JSON.stringify(toJson(SolveSchema, withoutPasswords(message)))),
  };
}

function withoutPasswords(message: MessageShape<typeof SolveSchema>): MessageShape<typeof SolveSchema> {
  const copy = clone(SolveSchema, message);
  for (const [key, value] of Object.entries(copy.description)) copy.description[key] = redactUrls(value);
  const op = copy.op?.op;
  if (op?.case !== "source") return copy;
  op.value.identifier = redactUrls(op.value.identifier);
  for (const [key, value] of Object.entries(op.value.attrs)) op.value.attrs[key] = redactUrls(value);
  return copy;
}

/** What a provenance with complete materials lacks. */
export function materialsIncompleteDetail(
  message: MessageShape<typeof ProvenanceMaterialsIncompleteSchema>,
): WireDetail {
  return detail("errdefs.ProvenanceMaterialsIncomplete", ProvenanceMaterialsIncompleteSchema, message);
}
