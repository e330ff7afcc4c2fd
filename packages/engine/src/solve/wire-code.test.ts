import assert from "node:assert/strict";
import { test } from "node:test";
import { BuildError, isBuildError } from "@kiln/base";
import { buildFailure, withBuildCode } from "./wire-code.ts";

test("failures of a build leave without a code of ours, with their message and details", async () => {
  const wire = [{ typeUrl: "github.com/moby/buildkit/errdefs.Vertex+json", value: new Uint8Array([1]) }];
  const error = new BuildError("not_found", "no such file", { wire });
  await assert.rejects(
    withBuildCode(() => Promise.reject(error)),
    (shown) => isBuildError(shown, "unknown") && shown.message === "no such file" && shown.wire === wire,
  );
});

test("cancelled, unimplemented and internal failures keep their codes", () => {
  for (const code of ["canceled", "deadline_exceeded", "unimplemented", "internal"] as const) {
    const error = new BuildError(code, "x");
    assert.equal(buildFailure(error), error);
  }
});
