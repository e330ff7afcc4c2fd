import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBakeArguments } from "./load-definition.ts";

test("URLs stand before the targets", () => {
  const here = { url: "", commandContext: "cwd://" };
  assert.deepEqual(parseBakeArguments([]), { ...here, targets: [] });
  assert.deepEqual(parseBakeArguments(["app", "https://example.com/x"]), {
    ...here,
    targets: ["app", "https://example.com/x"],
  });
  const repo = "git@example.com:me/repo.git#main:sub";
  assert.deepEqual(parseBakeArguments([repo, "app"]), { ...here, url: repo, targets: ["app"] });
  const other = "https://example.com/other.git";
  assert.deepEqual(parseBakeArguments([repo, other, "app"]), {
    url: repo,
    commandContext: other,
    targets: ["app"],
  });
});
