import assert from "node:assert/strict";
import { test } from "node:test";
import { BuildError } from "@kiln/base";
import type { SessionCaller, SessionManager } from "@kiln/session";
import { createSourceSessions } from "./session-services.ts";

/** A client that has one upload, or none. */
function client(upload: string | undefined, asked: string[], name: string): SessionCaller {
  const call = () => ({
    async *[Symbol.asyncIterator]() {
      asked.push(name);
      if (upload === undefined) throw new BuildError("not_found", `${name} has nothing`);
      yield { data: Buffer.from(upload) };
      yield { data: Buffer.from("!") };
    },
    [Symbol.asyncDispose]: async () => undefined,
  });
  return { signal: new AbortController().signal, channel: { call: async () => call() } } as never;
}

function manager(clients: Readonly<Record<string, SessionCaller>>): SessionManager {
  return {
    any: async <T>(ids: Iterable<string>, fn: (caller: SessionCaller) => Promise<T>): Promise<T> => {
      let last: unknown;
      for (const id of ids) {
        try {
          return await fn(clients[id] as SessionCaller);
        } catch (error) {
          last = error;
        }
      }
      throw last;
    },
  } as unknown as SessionManager;
}

test("an upload comes from the first of a build's sessions that has it", async () => {
  const asked: string[] = [];
  const sessions = createSourceSessions(
    manager({
      a: client(undefined, asked, "a"),
      b: client("b's", asked, "b"),
      c: client("c's", asked, "c"),
    }),
  );
  const { signal } = new AbortController();
  const url = new URL("http://buildkit-session/x");
  const parts: Buffer[] = [];
  for await (const chunk of await sessions.upload(["a", "b", "c"], url, signal))
    parts.push(Buffer.from(chunk));
  assert.equal(Buffer.concat(parts).toString(), "b's!");
  assert.deepEqual(asked, ["a", "b"]);
  await assert.rejects(async () => sessions.upload(["a"], url, signal), /a has nothing/);
});
