import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openTestBed, readText, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("no-cache-filter");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** A first stage that gives something else each time it runs, and what is made from it in many ways. */
const DOCKERFILE = `FROM busybox AS base
RUN echo base > /base

FROM base AS fresh
RUN cat /proc/sys/kernel/random/uuid > /stamp

FROM fresh AS child
RUN cp /stamp /child

FROM base AS copied
COPY --from=fresh /stamp /copied
RUN cp /copied /run-of-copied

FROM base AS linked
COPY --link --from=fresh /stamp /linked

FROM base AS bound
RUN --mount=from=fresh,target=/from cp /from/stamp /bound

FROM scratch
COPY --from=fresh /stamp /
COPY --from=child /child /
COPY --from=copied /copied /run-of-copied /
COPY --link --from=linked /linked /
COPY --from=bound /bound /
`;
const NAMES = ["stamp", "child", "copied", "run-of-copied", "linked", "bound"];

let builds = 0;

/** Builds into a folder; gives the stamp, which has to be the same everywhere. */
async function stampOf(context: string, ...args: string[]): Promise<string> {
  const out = `${bed.folder}/out-${++builds}`;
  await bed.build([...args, "--output", `type=local,dest=${out}`, context]);
  const stamps = NAMES.map((name) => readText(out, name).trim());
  assert.deepEqual(
    stamps,
    NAMES.map(() => stamps[0]),
    `mixed old and new content: ${stamps.join(" ")}`,
  );
  return stamps[0] ?? "";
}

test("what follows a step that was run again is never of old content", async () => {
  const context = bed.context("filter", { Dockerfile: DOCKERFILE });
  const first = await stampOf(context);
  assert.equal(await stampOf(context), first, "without the flag all is cached");
  const seen = new Set([first]);
  for (let round = 0; round < 3; round++) {
    const stamp = await stampOf(context, "--no-cache-filter", "fresh");
    assert.ok(!seen.has(stamp), "the stage ran again");
    seen.add(stamp);
    assert.equal(await stampOf(context), stamp, "the next build has the newest content");
  }
  await bed.restart();
  assert.ok(seen.has(await stampOf(context)), "also after a restart nothing is mixed");
});

test("neither when several clients build at once, with and without the flag", async () => {
  const context = bed.context("filter", { Dockerfile: DOCKERFILE });
  const known = await stampOf(context);
  for (let round = 0; round < 2; round++) {
    const stamps = await Promise.all([
      stampOf(context, "--no-cache-filter", "fresh"),
      stampOf(context),
      stampOf(context, "--no-cache-filter", "fresh"),
      stampOf(context),
    ]);
    for (const index of [0, 2]) assert.notEqual(stamps[index], known, stamps.join(" "));
  }
});
