import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  clone,
  create,
  type DescField,
  type DescFile,
  type DescMessage,
  fromBinary,
  fromJson,
  type Message,
  ScalarType,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { fileDesc as libraryFileDesc } from "@bufbuild/protobuf/codegenv2";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { descriptorBytes, fileDesc } from "./lean-file.ts";

const root = join(import.meta.dirname, "../../..");
const known = ["any", "timestamp", "empty", "field_mask", "duration"].map(
  (name) => `node_modules/@bufbuild/protobuf/dist/esm/wkt/google/protobuf/${name}_pb.js`,
);

interface Both {
  readonly lean: DescFile;
  readonly library: DescFile;
}

/** Both kinds of descriptors of all generated files, by the name under which other files import them. */
function loadAll(): Map<string, Both> {
  const texts = [...known, ...globSync("packages/api/src/gen/*_pb.ts", { cwd: root })].map((path) =>
    readFileSync(join(root, path), "utf8"),
  );
  const waiting = texts.map((text) => {
    const match = /export const (file_\w+)[^=]*=[^(]*fileDesc\("([^"]+)"(?:, \[([^\]]*)\])?\)/.exec(text);
    assert.ok(match);
    return { name: match[1] as string, base64: match[2] as string, imports: match[3]?.split(", ") ?? [] };
  });
  const done = new Map<string, Both>();
  const load = (name: string): Both => {
    const before = done.get(name);
    if (before) return before;
    const { base64, imports } = waiting.find((one) => one.name === name) ?? assert.fail(name);
    const files = imports.map(load);
    const both = {
      lean: fileDesc(
        base64,
        files.map(({ lean }) => lean),
      ),
      library: libraryFileDesc(
        base64,
        files.map(({ library }) => library),
      ),
    };
    done.set(name, both);
    return both;
  };
  for (const { name } of waiting) load(name);
  return done;
}

const files = loadAll();

/** Properties of the library's descriptors that ours have under another form, or not at all. */
const IGNORED = new Set(["proto", "toString"]);

function assertAlike(lean: unknown, library: unknown, seen: Map<unknown, unknown>, path: string): void {
  if (typeof library !== "object" || library === null) {
    if (typeof library === "function") assert.equal(typeof lean, "function", path);
    else assert.equal(lean, library, path);
    return;
  }
  if (seen.has(library)) {
    assert.equal(lean, seen.get(library), `${path} is another object`);
    return;
  }
  seen.set(library, lean);
  if (Array.isArray(library)) assert.equal((lean as unknown[]).length, library.length, path);
  else if ("kind" in library) assert.equal(String(lean), String(library), path);
  for (const [key, value] of Object.entries(library)) {
    if (!IGNORED.has(key)) assertAlike((lean as Record<string, unknown>)[key], value, seen, `${path}.${key}`);
  }
}

test("descriptors are the library's", () => {
  assert.ok(files.size > 25);
  const seen = new Map<unknown, unknown>();
  for (const [name, { lean, library }] of files) assertAlike(lean, library, seen, name);
});

test("the bytes of a descriptor name its imports", () => {
  for (const [name, { lean, library }] of files) {
    const read = fromBinary(FileDescriptorProtoSchema, descriptorBytes(lean) ?? assert.fail(name));
    assert.deepEqual(read.dependency, library.proto.dependency);
    assert.equal(read.messageType.length, library.proto.messageType.length);
    assert.equal(descriptorBytes(library), undefined);
  }
});

function messagesOf(parent: { messages?: DescMessage[]; nestedMessages?: DescMessage[] }): DescMessage[] {
  const own = parent.messages ?? parent.nestedMessages ?? [];
  return own.flatMap((message) => [message, ...messagesOf(message)]);
}

const MAX_DEPTH = 3;

/** Values that `create` takes for a message. */
function arbitrary(message: DescMessage, depth = 0): fc.Arbitrary<Record<string, unknown>> {
  const parts: Record<string, fc.Arbitrary<unknown>> = {};
  for (const member of message.members) {
    if (member.kind === "oneof") {
      const cases = member.fields.flatMap((field) => {
        const value = ofField(field, depth);
        return value ? [value.map((inner) => ({ case: field.localName, value: inner }))] : [];
      });
      if (cases.length > 0) parts[member.localName] = fc.oneof(...cases);
    } else {
      const value = ofField(member, depth);
      if (value) parts[member.localName] = value;
    }
  }
  return fc.record(parts, { requiredKeys: [] });
}

function ofField(field: DescField, depth: number): fc.Arbitrary<unknown> | undefined {
  const { message } = field;
  if (message && (depth >= MAX_DEPTH || message.typeName.startsWith("google.protobuf."))) return undefined;
  const one = message ? arbitrary(message, depth + 1) : field.enum ? fc.nat(3) : ofScalar(field.scalar);
  if (field.fieldKind === "list") return fc.array(one, { maxLength: 3 });
  if (field.fieldKind !== "map") return one;
  const key = field.mapKey === ScalarType.STRING ? fc.string() : fc.nat(100).map(String);
  return fc.dictionary(key, one, { maxKeys: 3, noNullPrototype: true });
}

function ofScalar(scalar: ScalarType | undefined): fc.Arbitrary<unknown> {
  switch (scalar) {
    case ScalarType.STRING:
      return fc.string({ unit: "grapheme" });
    case ScalarType.BYTES:
      return fc.uint8Array();
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return fc.integer();
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return fc.bigInt(0n, 2n ** 64n - 1n);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return fc.nat(0xffff_ffff);
    default:
      return fc.integer();
  }
}

test("messages are made, written, read, copied and shown alike", () => {
  for (const { lean, library } of files.values()) {
    const theirs = messagesOf(library);
    for (const [i, ours] of messagesOf(lean).entries()) {
      const their = theirs[i] as DescMessage;
      fc.assert(
        fc.property(arbitrary(their), (init) => {
          const message: Message = create(ours, init as never);
          const expected: Message = create(their, init as never);
          assert.deepEqual(message, expected);
          const bytes = toBinary(ours, message);
          assert.deepEqual(bytes, toBinary(their, expected));
          assert.deepEqual(fromBinary(ours, bytes), fromBinary(their, bytes));
          assert.deepEqual(clone(ours, message), clone(their, expected));
          if (their.typeName.startsWith("google.protobuf.")) return;
          const json = toJson(ours, message);
          assert.deepEqual(json, toJson(their, expected));
          assert.deepEqual(fromJson(ours, json), fromJson(their, json));
        }),
        { numRuns: 8 },
      );
    }
  }
});
