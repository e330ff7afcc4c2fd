import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { DefinitionSchema, OpSchema } from "@kiln/api/pb";
import { sha256 } from "@kiln/oci";
import {
  type Definition,
  decodeDefinition,
  definitionFromMessage,
  definitionMessage,
  diff,
  EnvList,
  encodeDefinition,
  git,
  headDigest,
  http,
  image,
  linkDefinition,
  loadDefinition,
  local,
  merge,
  passthrough,
  scratch,
  stateFromDefinition,
} from "./index.ts";

const map = { filename: "f", language: "Dockerfile", data: new Uint8Array([65]) };

function everything(): Definition {
  const base = image("alpine", { platform: { os: "linux", architecture: "arm64" } })
    .setEnv("A", "1")
    .setEnv("B", "ü")
    .setDir("/src")
    .setUser("me");
  const built = base.run({
    args: ["sh", "-c", "make"],
    mounts: [
      {
        target: "/src",
        source: local("context", { sessionId: "s", excludePatterns: ["<x>"] }),
        readonly: true,
      },
      { target: "/cache", cache: { id: "c", sharing: "locked" } },
      { target: "/tmp", tmpfs: { size: 100 } },
      { target: "/out" },
    ],
    secrets: [{ id: "t", target: "/run/secrets/t", env: "TOKEN", optional: true, uid: 1 }],
    ssh: [{ id: "default" }],
    proxyEnv: { httpProxy: "http://p" },
    ulimits: [{ name: "nofile", soft: 1, hard: -1 }],
    devices: [{ name: "vendor/class=a", optional: true }],
    network: "host",
    security: "insecure",
    hostname: "h",
    cgroupParent: "/g",
    validExitCodes: [0, 300],
    ignoreCache: true,
    name: "build it",
    location: { map, ranges: [{ start: { line: 1, character: 0 }, end: { line: 1, character: 3 } }] },
  });
  const files = scratch().file([
    { kind: "copy", from: built.mount("/out"), src: "/a", dest: "dir/", owner: "me:0", mode: "u+x" },
    { kind: "mkfile", path: "x", mode: 0o644, data: new Uint8Array([1, 2]), timestamp: 5_000_000_000n },
    { kind: "mkdir", path: "/d", mode: 0o755, parents: true, owner: { uid: 1, gid: 2 } },
    { kind: "rm", path: "y", allowWildcard: true },
    { kind: "symlink", target: "a", path: "/b" },
  ]);
  const handed = passthrough("p", [{ state: files, output: true }, { state: http("https://e/x") }]);
  return merge([built.root, handed[0]!, diff(built.root, git("https://h/r.git", { ref: "main" }))]).marshal();
}

test("ops are encoded as protobuf encodes what they decode to, with the oneof last", () => {
  const { def } = everything();
  assert.ok(def.length > 8);
  for (const bytes of def) {
    const op = fromBinary(OpSchema, bytes);
    const again = toBinary(OpSchema, op);
    assert.equal(again.length, bytes.length);
    const { inputs, platform, constraints, op: body } = op;
    const front = toBinary(
      OpSchema,
      create(OpSchema, {
        inputs,
        ...(platform ? { platform } : {}),
        ...(constraints ? { constraints } : {}),
      }),
    );
    assert.deepEqual(bytes.subarray(0, front.length), front);
    const back = toBinary(OpSchema, create(OpSchema, { op: body }));
    assert.deepEqual(bytes.subarray(front.length), back);
  }
});

test("a definition survives its message, and a state made from it keeps every byte", () => {
  const definition = everything();
  const message = fromBinary(DefinitionSchema, encodeDefinition(definition));
  const back = definitionFromMessage(message);
  assert.deepEqual(back.def, definition.def);
  assert.deepEqual(back.metadata.get(headDigest(back)!), definition.metadata.get(headDigest(definition)!));
  const again = stateFromDefinition(back).marshal();
  assert.deepEqual(new Set(again.def.map(sha256)), new Set(definition.def.map(sha256)));
  assert.deepEqual(encodeDefinition(again).length, encodeDefinition(definition).length);
});

test("loading gives names, inputs and metadata", () => {
  const edge = loadDefinition(definitionMessage(everything()));
  assert.match(
    edge.vertex.name,
    /^merge \(build it, passthrough p, diff \(build it\) -> \(git:\/\/h\/r\.git#main\)\)$/,
  );
  assert.equal(edge.vertex.inputs.length, 3);
});

test("changed ops and all that depend on them get new digests", () => {
  const state = image("alpine").run({ args: ["x"] }).root;
  const decoded = decodeDefinition(definitionMessage(state.marshal()));
  for (const entry of decoded.ops.values()) {
    if (entry.op.op.case !== "source") continue;
    entry.op.op.value.identifier = "docker-image://docker.io/library/busybox:latest";
    entry.changed = true;
  }
  const wanted = image("busybox")
    .run({ args: ["x"] })
    .root.marshal();
  assert.equal(linkDefinition(decoded).vertex.digest, headDigest(wanted));
});

test("malformed definitions are refused with BuildKit's texts", () => {
  const load = (def: Uint8Array[]) => () => loadDefinition(create(DefinitionSchema, { def }));
  const op = (init: Parameters<typeof create<typeof OpSchema>>[1]) =>
    toBinary(OpSchema, create(OpSchema, init));
  const src = op({ op: { case: "source", value: { identifier: "local://x" } } });
  const head = (index = 0n) => op({ inputs: [{ digest: sha256(src), index }] });
  assert.throws(load([]), { message: "invalid empty definition" });
  assert.throws(load([src]), { message: "invalid LLB with 1 vertexes" });
  assert.throws(load([src, op({ platform: {} })]), { message: "invalid LLB with no inputs on last vertex" });
  assert.throws(load([src, head(-1n)]), { message: "invalid input 0 output index -1" });
  assert.throws(
    load([head(), op({ inputs: [{ digest: sha256("?") }] })]),
    /^.*invalid missing input digest sha256:/,
  );
  assert.throws(load([new Uint8Array([255]), src]), { message: "failed to parse llb proto op" });
  const exec = (value: object) => [op({ op: { case: "exec", value } })] as const;
  const loadOne = ([bytes]: readonly [Uint8Array]) =>
    load([bytes, op({ inputs: [{ digest: sha256(bytes) }] })]);
  assert.throws(loadOne(exec({})), { message: "invalid exec op with no meta" });
  const meta = { args: ["a"] };
  assert.throws(loadOne(exec({ meta, mounts: [{ dest: "/", input: 0n }] })), /invalid mountinput/);
  const mounts = [{ dest: "/", input: -1n }];
  assert.throws(loadOne(exec({ meta, mounts, security: 2 })), { message: "invalid security mode 2" });
  const loop = [0, 1].map((i) => ({
    input: BigInt(1 - i),
    action: { case: "rm", value: { path: "/a" } },
    output: BigInt(i),
  }));
  assert.throws(
    loadOne([op({ op: { case: "file", value: { actions: loop } } } as never)]),
    /loop from index/,
  );
});

test("chains of 20,000 steps are marshalled and loaded without recursion", () => {
  let state = image("alpine");
  for (let i = 0; i < 20_000; i++) state = state.run({ args: [String(i)] }).root;
  assert.equal(loadDefinition(definitionMessage(state.marshal())).vertex.name, "19999");
});

test("environments keep the order of assignment in every version", () => {
  const a = EnvList.from(["A=1", "B=2"]);
  const b = a.set("A", "3");
  const c = a.delete("B").set("__proto__", "x");
  assert.deepEqual(b.toArray(), ["B=2", "A=3"]);
  assert.deepEqual(a.toArray(), ["A=1", "B=2"]);
  assert.deepEqual(c.toArray(), ["A=1", "__proto__=x"]);
  assert.equal(b.get("A"), "3");
  assert.equal(EnvList.empty.set("X", "1").get("X"), "1");
  assert.deepEqual(EnvList.empty.toArray(), []);
});
