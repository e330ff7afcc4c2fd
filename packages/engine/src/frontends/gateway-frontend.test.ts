import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { SourceOpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { JobBridge } from "../solve/bridge.ts";
import type { FrontendRequest } from "./frontend.ts";
import { capNames, findFrontendImage, repositoryOf } from "./frontend-image.ts";
import { createGatewayFrontend } from "./gateway-frontend.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

/** A request whose images all have this config. */
function request(attrs: Record<string, string>, config: unknown = {}, inputs = 0): FrontendRequest {
  const bridge = Object.create(JobBridge.prototype) as JobBridge;
  Object.defineProperties(bridge, {
    sessionId: { value: "" },
    platforms: { value: [] },
    resolveSourceMetadata: {
      configurable: true,
      value: async (source: { identifier: string }) => {
        if (source.identifier.includes("missing")) throw new BuildError("not_found", "missing: not found");
        return {
          source: create(SourceOpSchema, { identifier: source.identifier }),
          image: { digest: DIGEST, config: Buffer.from(JSON.stringify(config)) },
        };
      },
    },
  });
  return {
    bridge,
    attrs: new Map(Object.entries(attrs)),
    inputs: new Map(Array.from({ length: inputs }, (_, i) => [`i${i}`, {} as never])),
    signal: new AbortController().signal,
  };
}

const solve = (attrs: Record<string, string>, allowed: string[] = [], config: unknown = {}, inputs = 0) =>
  createGatewayFrontend({ allowedRepositories: allowed }).solve(request(attrs, config, inputs));

describe("gateway.v0", () => {
  it("wants a source", async () => {
    await assert.rejects(solve({}), /^BuildError: no source specified for gateway$/);
    await assert.rejects(solve({ "gateway-devel": "" }), /development gateway is no longer supported/);
  });

  it("takes images of allowed repositories only, however they are written", async () => {
    const allowed = ["docker/dockerfile"];
    for (const source of [
      "evil/dockerfile",
      "registry.test/docker/dockerfile:1",
      "docker/dockerfile-upstream",
    ]) {
      await assert.rejects(
        solve({ source }, allowed),
        new RegExp(`'${source}' is not an allowed gateway source`),
      );
    }
    for (const source of ["docker.io/docker/dockerfile:missing", `docker/dockerfile:missing@${DIGEST}`]) {
      await assert.rejects(solve({ source }, allowed), /failed to resolve source metadata for docker\.io/);
    }
    assert.throws(() => createGatewayFrontend({ allowedRepositories: ["NOT/A NAME"] }));
    assert.equal(repositoryOf("x:1"), "docker.io/library/x");
  });

  it("refuses capabilities that the image doesn't have, and says which", async () => {
    const source = "some/frontend";
    await assert.rejects(solve({ source, "frontend.caps": "a.b+forward" }), (error: BuildError) => {
      assert.equal(error.code, "unimplemented");
      assert.equal(error.message, "unsupported frontend capability a.b");
      assert.match(error.wire[0]?.typeUrl ?? "", /errdefs\.FrontendCap/);
      return true;
    });
    await assert.rejects(solve({ source }, [], {}, 1), /capability moby\.buildkit\.frontend\.inputs/);
    assert.deepEqual([...capNames("a+x,,b,a")], ["a", "b"]);
  });

  it("runs what the image says, pinned to its digest", async () => {
    const config = {
      Env: ["A=1"],
      Entrypoint: ["/fe"],
      WorkingDir: "/w",
      Labels: { "moby.buildkit.frontend.caps": "x.y" },
    };
    const image = await findFrontendImage(request({}, { config }), "some/frontend:2");
    assert.deepEqual(image.args, ["/fe"]);
    assert.equal(image.cwd, "/w");
    assert.deepEqual(image.env, ["A=1"]);
    assert.ok(image.caps.has("x.y"));
    const text = Buffer.concat(image.definition.def).toString("latin1");
    assert.ok(text.includes(`docker-image://docker.io/some/frontend:2@${DIGEST}`));
    assert.ok(text.includes("image.recordtype"));
  });

  it("runs /run in / when the image says nothing, and refuses a config that is none", async () => {
    const image = await findFrontendImage(request({}), "f");
    assert.deepEqual([image.args, image.cwd, image.env], [["/run"], "/", []]);
    const odd = await findFrontendImage(
      request({}, { config: { Env: 5, Labels: [1], Entrypoint: {} } }),
      "f",
    );
    assert.deepEqual([odd.args, odd.env], [["/run"], []]);
    const broken = request({});
    Object.defineProperty(broken.bridge, "resolveSourceMetadata", {
      value: async () => ({
        source: create(SourceOpSchema, { identifier: "docker-image://docker.io/library/f:latest" }),
        image: { digest: "", config: Buffer.from("{") },
      }),
    });
    await assert.rejects(findFrontendImage(broken, "f"), /failed to parse image config/);
    await assert.rejects(findFrontendImage(request({}), "NOT OK"), /invalid context name NOT OK/);
  });
});
