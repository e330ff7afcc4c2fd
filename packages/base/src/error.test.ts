import assert from "node:assert/strict";
import { it } from "node:test";
import { redactUrls } from "./error.ts";

it("masks the passwords of all URLs in a text", () => {
  assert.equal(
    redactUrls("get https://u:p@ss:w@h/x and http://v:q@h:80, not https://h/a:b@c or a:b@c"),
    "get https://u:xxxxx@h/x and http://v:xxxxx@h:80, not https://h/a:b@c or a:b@c",
  );
});
