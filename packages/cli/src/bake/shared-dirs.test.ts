import assert from "node:assert/strict";
import { test } from "node:test";
import { BuildkitClient } from "@kiln/client";
import { duplexPair, Router } from "@kiln/grpc";
import { Channel } from "@kiln/grpc/client";
import { SharedDirs } from "./shared-dirs.ts";

test("targets share sessions for the directories that they have in common", async () => {
  const [near, far] = duplexPair();
  new Router().accept(far, { transport: "test" });
  await using client = new BuildkitClient(Channel.over(near));
  const none = new Map<string, string>();
  await using shared = new SharedDirs([
    { context: "app", dockerfile: "app/Dockerfile", contexts: none },
    { context: "./app/", dockerfile: "", contexts: new Map([["lib", "lib"]]) },
    { context: "web", dockerfile: "-", contexts: new Map([["lib", "lib"]]) },
    { context: "web", dockerfile: "", dockerfileInline: "FROM scratch", contexts: none },
    { context: "alone", dockerfile: "", contexts: none },
  ]);
  const attrs = (dirs: Record<string, string>): Record<string, string> =>
    Object.fromEntries(shared.attrsFor(client, new Map(Object.entries(dirs)), "key"));
  const first = attrs({ context: "app", dockerfile: "app" });
  const id = first["local-sessionid:context"];
  assert.ok(id);
  assert.deepEqual(first, { "local-sessionid:context": id, "local-sessionid:dockerfile": id });
  assert.deepEqual(attrs({ context: "./app/", dockerfile: "./app/", lib: "lib" }), {
    ...first,
    "local-sessionid:lib": id,
  });
  // One session has each name once, temporary directories are a target's own.
  const web = attrs({ context: "web", dockerfile: "/tmp/inline", lib: "lib" });
  assert.deepEqual(Object.keys(web), ["local-sessionid:context", "local-sessionid:lib"]);
  assert.notEqual(web["local-sessionid:context"], id);
  assert.equal(web["local-sessionid:lib"], id);
  assert.deepEqual(attrs({ context: "alone", dockerfile: "alone" }), {});
});
