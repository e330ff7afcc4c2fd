import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { Content } from "@kiln/api/content";
import { Control } from "@kiln/api/control";
import { LLBBridge } from "@kiln/api/gateway";
import { OpSchema } from "@kiln/api/pb";
import { newId } from "@kiln/formats";
import { Channel, dialAddress, pathOf } from "@kiln/grpc/client";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

const SEED = Number(process.env.SEED ?? 11);
const CALL_TIMEOUT_MS = 20_000;

let bed: TestBed;
let channel: Channel;

before(async () => {
  bed = await openTestBed("hostile-clients");
  channel = new Channel(dialAddress(bed.daemon().address));
});

after(async () => {
  await channel?.close({ force: true });
  await bed?.[Symbol.asyncDispose]();
});

function randomNumbers(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const random = randomNumbers(SEED);
const pick = <T>(values: readonly T[]): T => values[random(values.length)] as T;

/** Texts that are paths out, or no names at all. */
const TEXTS = [
  "",
  "..",
  "../../../../../../tmp/kiln-canary",
  "/etc/passwd",
  "a\0b",
  "x".repeat(4096),
  "…é\u202e",
  "__proto__",
  "sha256:../../../etc/passwd",
  `sha256:${"0".repeat(64)}`,
  "docker-image://",
  "docker-image://docker.io/library/busybox:latest",
  "git://../x#..:..",
  "local://context",
  "http://127.0.0.1:1/x",
  "oci-layout://x/y@sha256:00",
  "-oProxyCommand=touch /tmp/kiln-canary",
  "linux/amd64",
  "dockerfile.v0",
  "gateway.v0",
  "local",
  "image",
  "tar",
  "10",
  "-1",
];
const NUMBERS = [0n, 1n, -1n, 2n ** 31n - 1n, -(2n ** 31n), 255n, 3n];
const LONGS = [...NUMBERS, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n];

function scalar(type: ScalarType): unknown {
  switch (type) {
    case ScalarType.STRING:
      return pick(TEXTS);
    case ScalarType.BYTES:
      return pick([
        new Uint8Array(0),
        Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1),
        Buffer.from(pick(TEXTS)),
        operation(),
      ]);
    case ScalarType.BOOL:
      return random(2) === 0;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return pick([0, -1, Number.NaN, Number.POSITIVE_INFINITY]);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return pick([0n, 1n, 2n ** 64n - 1n]);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return pick(LONGS);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return pick([0, 1, 2 ** 32 - 1]);
    default:
      return Number(pick(NUMBERS));
  }
}

function oneOf(field: DescField, depth: number): unknown {
  if (field.message) return fieldsOf(field.message, depth + 1);
  if (field.enum) return pick([0, 1, 2, 3, 99, -1]);
  return scalar(field.scalar ?? ScalarType.STRING);
}

const MAX_DEPTH = 5;

/** Fields of a message that hold anything that their types allow. */
function fieldsOf(schema: DescMessage, depth = 0): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  if (depth > MAX_DEPTH) return out;
  for (const member of schema.members) {
    if (random(3) === 0) continue;
    if (member.kind === "oneof") {
      const field = pick(member.fields);
      out[member.localName] = { case: field.localName, value: oneOf(field, depth) };
    } else if (member.fieldKind === "list") {
      out[member.localName] = Array.from({ length: random(4) }, () => oneOf(member, depth));
    } else if (member.fieldKind === "map") {
      const entries = Array.from({ length: random(3) }, () => [
        member.mapKey === ScalarType.STRING ? pick(TEXTS) : String(random(10)),
        oneOf(member, depth),
      ]);
      out[member.localName] = Object.fromEntries(entries.filter(([key]) => key !== "__proto__"));
    } else out[member.localName] = oneOf(member, depth);
  }
  return out;
}

function operation(inputs?: readonly { readonly digest: string; readonly index: bigint }[]): Uint8Array {
  return toBinary(
    OpSchema,
    create(OpSchema, { ...fieldsOf(OpSchema), ...(inputs ? { inputs } : {}) } as never),
  );
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** A graph of random operations whose inputs point anywhere. */
function definition(): Record<string, unknown> {
  const def: Uint8Array[] = [];
  const metadata: Record<string, unknown> = {};
  for (let i = 1 + random(5); i > 0; i--) {
    const known = def.map(digestOf);
    const digest = (): string => (known.length > 0 && random(4) > 0 ? pick(known) : pick(TEXTS));
    const bytes = operation(
      Array.from({ length: random(3) }, () => ({ digest: digest(), index: pick(LONGS) })),
    );
    def.push(bytes);
    metadata[digestOf(bytes)] = { description: { "llb.customname": pick(TEXTS) } };
  }
  if (random(3) === 0) def.push(pick(def));
  return { def, metadata };
}

/** Nothing may hang: whatever comes is an answer or an error. */
async function ask(method: DescMethod, input: unknown, metadata: [string, string][] = []): Promise<string> {
  const begin = performance.now();
  try {
    const opts = { timeoutMs: CALL_TIMEOUT_MS, metadata };
    if (method.methodKind === "unary") await channel.unary(method as never, input as never, opts);
    else if (method.methodKind === "server_streaming") {
      let count = 0;
      for await (const _answer of channel.serverStream(method as never, input as never, opts))
        if (++count > 20) break;
    }
    return "ok";
  } catch (error) {
    const code = (error as { code?: string }).code ?? String(error);
    const ms = performance.now() - begin;
    assert.notEqual(code, "deadline_exceeded", `${pathOf(method)} hung for ${ms} ms`);
    return code;
  }
}

/** The daemon lives, builds, wrote nothing elsewhere, and nothing in it failed by a bug of ours. */
async function assertFine(): Promise<void> {
  const { stderr, code } = await bed.kiln([
    "build",
    "--progress=plain",
    "--no-cache",
    bed.context("control", { Dockerfile: "FROM busybox\nRUN echo fine\n" }),
  ]);
  assert.equal(code, 0, stderr);
  const log = bed.daemon().log();
  const bugs = log.split("\n").filter((line) => /msg=uncaught|stack=".+"/.test(line));
  assert.deepEqual(bugs.slice(0, 3), []);
  assert.ok(!existsSync("/tmp/kiln-canary"));
  assert.deepEqual(readdirSync(join(bed.daemon().root, "tmp")), []);
}

test("definitions that make no sense", async () => {
  const codes = new Map<string, number>();
  for (let i = 0; i < 120; i++) {
    const code = await ask(Control.method.solve, {
      Ref: newId(),
      Definition: definition(),
      ...(random(2) === 0
        ? {
            Exporters: [
              { Type: pick(["local", "oci", "image", "x"]), Attrs: { dest: "../x", name: pick(TEXTS) } },
            ],
          }
        : {}),
    });
    codes.set(code, (codes.get(code) ?? 0) + 1);
  }
  assert.ok(codes.size >= 1);
  await assertFine();
});

test("requests that make no sense, for every call of the control API", async () => {
  const methods = Object.values(Control.method).filter((method) => method.methodKind !== "bidi_streaming");
  const calls = methods.flatMap((method) =>
    Array.from({ length: 25 }, (_, i) => {
      const input = fieldsOf(method.input);
      // A record that is listened for may never come.
      if (method.localName === "listenBuildHistory") input["EarlyExit"] = true;
      if (method.localName === "status") input["Ref"] = `none-${i}`;
      if (method.localName === "solve") {
        input["Ref"] = String(input["Ref"] ?? "") + newId();
        // A build without either waits for its client to drive it.
        input["Frontend"] = pick(TEXTS.filter((text) => text !== ""));
      }
      return ask(method, input);
    }),
  );
  await Promise.all(calls);
  await assertFine();
});

test("calls of the gateway and the content store with any names", async () => {
  const methods = [LLBBridge, Content].flatMap((service) => Object.values(service.method) as DescMethod[]);
  const calls = methods.flatMap((method) =>
    Array.from({ length: 8 }, (_, i) => {
      const id: [string, string] = [
        "buildkit-controlapi-buildid",
        pick(["", "..", "none", "x".repeat(2000)]),
      ];
      return ask(method, fieldsOf(method.input), i === 0 ? [] : [id]);
    }),
  );
  await Promise.all(calls);
  await assertFine();
});

test("bytes that are no messages, and sessions that say nonsense", async () => {
  const calls = [
    Control.method.solve,
    Control.method.status,
    Control.method.session,
    LLBBridge.method.solve,
    LLBBridge.method.execProcess,
  ];
  for (const method of calls) {
    for (let i = 0; i < 12; i++) {
      const ids: [string, string][] = [
        ["x-docker-expose-session-uuid", pick(["", "../x", "same", newId()])],
        ["x-docker-expose-session-name", pick(["", "é".repeat(10), "n"])],
        ["x-docker-expose-session-sharedkey", "x".repeat(random(3000))],
        ...Array.from({ length: random(4) }, (): [string, string] => [
          "x-docker-expose-session-grpc-method",
          pick(["", "/", "/moby.filesync.v1.FileSync/DiffCopy", "x"]),
        ]),
      ].map(([name, value]) => [name ?? "", encodeURIComponent(value ?? "")]);
      const call = await channel.rawCall(pathOf(method), { metadata: ids, timeoutMs: CALL_TIMEOUT_MS });
      try {
        for (let n = random(4); n >= 0; n--) {
          await call.send(Uint8Array.from({ length: random(200) }, () => random(256)));
        }
        if (random(2) === 0) call.closeSend();
        await Promise.race([call.receive(), new Promise((resolve) => setTimeout(resolve, 100))]);
      } catch {
        // An error is an answer.
      } finally {
        call.cancel();
      }
    }
  }
  await assertFine();
});
