import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { FileActionCopySchema } from "@kiln/api/pb";
import { goJsonText, goStruct } from "./go-json.ts";

test("texts are escaped as Go escapes them", () => {
  assert.equal(goJsonText("<a&b>\u2028\n"), '"\\u003ca\\u0026b\\u003e\\u2028\\n"');
  assert.equal(
    goJsonText({ b: new Uint8Array([1, 2]), n: 5n, skip: undefined, z: null }),
    '{"b":"AQI=","n":5,"z":null}',
  );
});

test("messages are written as Go's structs", () => {
  const copy = create(FileActionCopySchema, {
    src: "/a",
    dest: "/b",
    mode: -1,
    timestamp: -1n,
    includePatterns: ["x"],
    owner: {
      user: { user: { case: "byName", value: { name: "u", input: 1n } } },
      group: { user: { case: "byID", value: 0 } },
    },
  });
  assert.equal(
    goJsonText(goStruct(FileActionCopySchema, copy)),
    '{"src":"/a","dest":"/b","owner":{"user":{"User":{"byName":{"name":"u","input":1}}},"group":{"User":{}}},"mode":-1,"timestamp":-1,"include_patterns":["x"]}',
  );
});
