import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOption } from "@kiln/bake";
import { BuildError } from "@kiln/base";
import type { GatewayClient, GatewaySolve } from "@kiln/client";
import { callOutput } from "./call-result.ts";
import { solveCall } from "./solve-call.ts";

const call = (name: string, format?: "json"): CallOption =>
  ({ name, ignoreStatus: false, ...(format === undefined ? {} : { format }) }) as CallOption;

function textOf(name: string, json: unknown, rest: Record<string, string> = {}): string {
  const response = new Map(
    Object.entries({ "result.json": JSON.stringify(json), version: "1.0.0", ...rest }),
  );
  return callOutput(call(name), response, "Dockerfile").text;
}

test("answers are written from their JSON, as Buildx does", () => {
  const outline = {
    description: "all of it",
    args: [{ name: "VERSION", value: "1", description: "which" }, { name: "B" }],
    secrets: [{ name: "token", required: true }, { name: "x" }],
    ssh: [{ name: "default" }],
  };
  assert.equal(
    textOf("outline", outline, { "result.txt": "of the frontend" }),
    "TARGET:      (default)\nDESCRIPTION: all of it\n\n" +
      "BUILD ARG   VALUE   DESCRIPTION\nVERSION     1       which\nB                   \n\n" +
      "SECRET   REQUIRED\ntoken    true\nx        \n\nSSH       REQUIRED\ndefault   \n\n",
  );
  const targets = { targets: [{ name: "a", description: "first" }, { default: true }] };
  assert.equal(textOf("targets", targets), "TARGET    DESCRIPTION\na         first\n(default) \n");
  const requests = [{ name: "frontend.outline", version: "1.0.0", description: "d" }, { name: "own.x" }];
  assert.equal(
    textOf("subrequests.describe", requests),
    "NAME    VERSION DESCRIPTION\noutline 1.0.0   d\nown.x           \n",
  );
});

test("answers that are newer, of another kind or no JSON", () => {
  const newer = { "result.txt": "newer\u001b[2J", version: "1.10" };
  assert.equal(textOf("outline", {}, newer), "newer");
  assert.equal(textOf("lint", {}, newer), "newer");
  assert.equal(textOf("outline", { args: 3, secrets: [1], name: {} }), "SECRET   REQUIRED\n         \n\n");
  assert.equal(textOf("own.request", {}, { "result.txt": "its text" }), "its text");
  const broken = new Map([["result.json", "{"]]);
  assert.throws(() => callOutput(call("targets"), broken, ""), /the frontend's answer is no JSON/);
});

test("a check that can't be finished prints its JSON and fails", () => {
  const data = Buffer.from("FROM\n").toString("base64");
  const location = { ranges: [{ start: { line: 1 }, end: { line: 1 } }] };
  const json = JSON.stringify({
    sources: [{ filename: "x", data }],
    buildError: { message: "bad", location },
  });
  const output = callOutput(call("lint", "json"), new Map([["result.json", json]]), "Dockerfile");
  assert.equal(output.text, `${json}\n`);
  assert.equal(output.exitCode, 1);
  assert.match(output.failure?.message ?? "", /^bad\nDockerfile:1\n-+\n {3}1 \| >>> FROM\n/);
});

test("where a frontend doesn't answer, a published one is asked", async () => {
  const asked: (string | undefined)[] = [];
  const gateway = (answer: (syntax: string | undefined) => object): GatewayClient =>
    ({
      solve: async ({ FrontendOpt: options }: GatewaySolve) => {
        asked.push(options?.["build-arg:BUILDKIT_SYNTAX"]);
        return answer(options?.["build-arg:BUILDKIT_SYNTAX"]);
      },
    }) as unknown as GatewayClient;
  const request = (id: string): GatewaySolve => ({ FrontendOpt: { requestid: id } });
  const unsupported = (id: string) => (syntax: string | undefined) => {
    if (syntax === undefined) throw new BuildError("unknown", `failed: unsupported request ${id}`);
    return { from: syntax };
  };
  for (const [id, version] of [
    ["frontend.lint", "1.8.1"],
    ["frontend.outline", "1.7.1"],
    ["frontend.targets", "1.7.1"],
  ] as const) {
    const answer = (await solveCall(gateway(unsupported(id)), request(id))) as unknown as { from: string };
    assert.match(answer.from, new RegExp(`^docker/dockerfile:${version}@sha256:[0-9a-f]{64}$`));
  }
  asked.length = 0;
  await assert.rejects(
    solveCall(gateway(unsupported("frontend.own")), request("frontend.own")),
    /unsupported/,
  );
  assert.deepEqual(asked, [undefined]);
  const failing = gateway((syntax) => {
    throw new BuildError("unknown", syntax === undefined ? "unsupported request frontend.lint" : "offline");
  });
  await assert.rejects(solveCall(failing, request("frontend.lint")), /unsupported request frontend\.lint/);
});
