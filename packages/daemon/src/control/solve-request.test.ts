import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { SolveRequestSchema } from "@kiln/api/control";
import { solveRequestOf } from "./solve-request.ts";

function epochOf(value: string, attrs: Record<string, string> = {}): string | undefined {
  const message = create(SolveRequestSchema, {
    FrontendAttrs: { "build-arg:SOURCE_DATE_EPOCH": value },
    Exporters: [{ Type: "oci", Attrs: attrs }],
  });
  return solveRequestOf(message).exporters[0]?.attrs.get("source-date-epoch");
}

test("exporters get an epoch in numbers; other words are for the frontend", () => {
  assert.equal(epochOf("1600000000"), "1600000000");
  assert.equal(epochOf(""), "");
  assert.equal(epochOf("context"), undefined);
  assert.equal(epochOf("5", { "source-date-epoch": "7" }), "7");
});
