import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { DefinitionSchema, InputSchema, NetMode, OpSchema } from "@kiln/api/pb";
import { loadDefinition } from "./load-definition.ts";

type OpInit = MessageInitShape<typeof OpSchema>;

/** Marshals ops; inputs are named by the place of an earlier op and an output. */
function definition(ops: readonly { readonly op: OpInit; readonly inputs?: readonly [number, number][] }[]) {
  const digests: string[] = [];
  const def = ops.map(({ op, inputs = [] }) => {
    const bytes = toBinary(
      OpSchema,
      create(OpSchema, {
        ...op,
        inputs: inputs.map(([at, index]) =>
          create(InputSchema, { digest: digests[at] ?? "", index: BigInt(index) }),
        ),
      }),
    );
    digests.push(digestOf(bytes));
    return bytes;
  });
  return { def, digests, message: create(DefinitionSchema, { def }) };
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

const IMAGE: OpInit = {
  op: { case: "source", value: { identifier: "docker-image://docker.io/library/alpine:latest" } },
};

function exec(network: NetMode = NetMode.UNSET): OpInit {
  return {
    op: {
      case: "exec",
      value: { meta: { args: ["true"], cwd: "/" }, mounts: [{ input: 0n, dest: "/", output: 0n }], network },
    },
  };
}

const SIMPLE = [
  { op: IMAGE },
  { op: exec(), inputs: [[0, 0]] },
  { op: {}, inputs: [[1, 0]] },
] satisfies Parameters<typeof definition>[0];

test("vertices have the digests of the bytes that came", async () => {
  const { digests, message } = definition(SIMPLE);
  const { index, vertex } = await loadDefinition(message, {});
  assert.equal(index, 0);
  assert.equal(vertex.digest, digests[1]);
  assert.equal(vertex.op.originalDigest, digests[1]);
  assert.equal(vertex.inputs[0]?.vertex.digest, digests[0]);
  assert.equal(vertex.name, "true");
});

test("a source that a policy changes gives itself and what is made of it new digests", async () => {
  const { digests, message } = definition(SIMPLE);
  const { vertex } = await loadDefinition(message, {
    onSource: async (op) => {
      if (op.op.case === "source") op.op.value.identifier = "docker-image://mirror.test/alpine:1";
      return true;
    },
  });
  assert.notEqual(vertex.digest, digests[1]);
  assert.equal(vertex.op.originalDigest, digests[1]);
  assert.notEqual(vertex.inputs[0]?.vertex.digest, digests[0]);
  const again = await loadDefinition(definition(SIMPLE).message, { onSource: async () => false });
  assert.equal(again.vertex.digest, digests[1]);
  await assert.rejects(
    loadDefinition(definition(SIMPLE).message, { onSource: () => Promise.reject(new Error("no")) }),
    /error evaluating the source policy: no/,
  );
});

test("a proxied step is another than one that isn't; steps without a network are the same", async () => {
  const digestWith = async (network: NetMode, proxyNetwork: boolean) => {
    const { message } = definition([SIMPLE[0], { ...SIMPLE[1], op: exec(network) }, SIMPLE[2]] as never);
    return (await loadDefinition(message, { proxyNetwork })).vertex;
  };
  const [plain, proxied] = [
    await digestWith(NetMode.UNSET, false),
    await digestWith(NetMode.UNSET, true),
  ] as const;
  assert.notEqual(plain.digest, proxied.digest);
  assert.equal(proxied.op.proxied, true);
  assert.equal((await digestWith(NetMode.NONE, false)).digest, (await digestWith(NetMode.NONE, true)).digest);
});

test("metadata belongs to the op of its digest", async () => {
  const { digests, message } = definition(SIMPLE);
  message.metadata[digests[1] as string] = {
    ignoreCache: true,
    description: { "llb.customname": "my step" },
    progressGroup: { id: "g", name: "group", weak: true },
    exportCache: { Value: false },
  } as never;
  const { vertex } = await loadDefinition(message, {});
  assert.equal(vertex.name, "my step");
  assert.equal(vertex.options.ignoreCache, true);
  assert.equal(vertex.options.exportCache, false);
  assert.deepEqual(vertex.options.progressGroup, { id: "g", name: "group", weak: true });
  assert.equal(vertex.inputs[0]?.vertex.options.ignoreCache, false);
});

test("graphs that are none are refused in BuildKit's words", async () => {
  const cases: [ReturnType<typeof create<typeof DefinitionSchema>>, RegExp][] = [
    [create(DefinitionSchema), /invalid empty definition/],
    [
      create(DefinitionSchema, { def: [Buffer.from("\xff\xff\xff", "latin1")] }),
      /failed to parse llb proto op/,
    ],
    [definition([{ op: {} }]).message, /invalid LLB with 1 vertexes/],
    [definition([SIMPLE[0], { op: {} }] as never).message, /invalid LLB with no inputs on last vertex/],
    [definition([SIMPLE[0], { op: {}, inputs: [[7, 0]] }] as never).message, /invalid missing input digest/],
    [
      definition([SIMPLE[0], { op: {}, inputs: [[0, -1]] }] as never).message,
      /invalid input 0 output index -1/,
    ],
  ];
  for (const [message, text] of cases)
    await assert.rejects(loadDefinition(message, {}), (error: unknown) => {
      assert.match(String(error), text);
      assert.equal((error as { code?: string }).code, "invalid_argument");
      return true;
    });
  const { message } = definition(SIMPLE);
  message.Source = {
    locations: { x: { locations: [{ sourceIndex: 3, ranges: [] }] } },
    infos: [],
  } as never;
  await assert.rejects(loadDefinition(message, {}), /invalid source index 3 for vertex x/);
});

test("a deep graph needs no deep stack", async () => {
  const ops: Parameters<typeof definition>[0][number][] = [{ op: IMAGE }];
  for (let i = 0; i < 20_000; i++) ops.push({ op: exec(), inputs: [[i, 0]] });
  ops.push({ op: {}, inputs: [[20_000, 0]] });
  const { digests, message } = definition(ops);
  const { vertex } = await loadDefinition(message, {});
  assert.equal(vertex.digest, digests[20_000]);
});
