import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ResultSchema } from "@kiln/api/gateway";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, errorMessage, isCanceled, sleep } from "@kiln/base";
import type { GatewayClient } from "@kiln/client";
import type { ResolvedNode } from "@kiln/driver";
import { checkLimit, parseJobs } from "./jobs.ts";
import { StatusMerger } from "./prefix-status.ts";
import { type Builds, runTargets, type TargetsEnvironment } from "./run-targets.ts";

/** A target: what it links to, how long it takes to evaluate, and whether that fails. */
interface Plan {
  readonly links?: readonly string[];
  readonly takesMs?: number;
  readonly fails?: boolean;
}

interface Run {
  /** `NAME start`, `NAME evaluated`, `NAME exported`, in the order in which they happened. */
  readonly events: readonly string[];
  readonly outcomes: readonly string[];
  readonly failure: string;
}

const node = { node: { name: "n0" }, client: {}, platforms: [] } as unknown as ResolvedNode;

function requestOf(name: string, { links = [] }: Plan): BuildRequest {
  return {
    name,
    context: name,
    dockerfile: "Dockerfile",
    contexts: new Map(links.map((link) => [link, `target:${link}`])),
    platforms: [],
  } as unknown as BuildRequest;
}

/** Runs targets whose builds only take time. */
async function run(plans: Record<string, Plan>, jobs: string): Promise<Run> {
  const events: string[] = [];
  const gatewayOf = (name: string, signal: AbortSignal): GatewayClient =>
    ({
      evaluate: async () => {
        await sleep(plans[name]?.takesMs ?? 1, signal);
        if (plans[name]?.fails) throw new BuildError("unknown", `${name} broke`);
        events.push(`${name} evaluated`);
      },
    }) as unknown as GatewayClient;
  const builds: Builds = {
    resolve: () => Promise.resolve([node]),
    run: async (request, environment, links = {}) => {
      const { name } = request;
      events.push(`${name} start`);
      assert.deepEqual(
        links.contexts?.(node).map(({ key }) => key),
        (plans[name]?.links ?? []).map((link) => `0-${link}`),
      );
      const gateway = gatewayOf(name, environment.signal);
      const result = create(ResultSchema, { result: { case: "ref", value: { id: name } } });
      await links.onResult?.(result, gateway, node);
      // What nobody links to is only evaluated by its export.
      if (!events.includes(`${name} evaluated`)) await gateway.evaluate(name);
      environment.signal.throwIfAborted();
      events.push(`${name} exported`);
      return { response: new Map(), dockerfileLabel: "", ref: name };
    },
  };
  const environment = {
    builder: { nodes: [node.node] },
    signal: new AbortController().signal,
    onStatus: () => undefined,
    merger: new StatusMerger(() => undefined),
    jobs: parseJobs(jobs),
    groupRef: "g",
  } as unknown as TargetsEnvironment;
  const requests = Object.entries(plans).map(([name, plan]) => requestOf(name, plan));
  const { outcomes, failure } = await runTargets(requests, environment, builds);
  return {
    events,
    outcomes: [...outcomes.keys()],
    failure: failure === undefined ? "" : errorMessage(failure),
  };
}

const before = (events: readonly string[], first: string, second: string): void => {
  assert.ok(events.includes(first), `${first} in ${events.join(", ")}`);
  assert.ok(
    events.indexOf(first) < events.indexOf(second),
    `${first} before ${second} in ${events.join(", ")}`,
  );
};

test("--jobs: a number, a mode or both; the last of each counts", () => {
  assert.deepEqual(parseJobs(""), { parallel: 0, mode: "fail-fast" });
  assert.deepEqual(parseJobs("3"), { parallel: 3, mode: "fail-fast" });
  assert.deepEqual(parseJobs("defer-error,parallel=2"), { parallel: 2, mode: "defer-error" });
  assert.deepEqual(parseJobs("mode=defer-output"), { parallel: 0, mode: "defer-output" });
  assert.deepEqual(parseJobs("defer-error,defer-output,parallel=1,parallel=0"), {
    parallel: 0,
    mode: "defer-output",
  });
  for (const text of ["-1", "x", "parallel=", "parallel=x", "mode=x", "1.5"]) {
    assert.throws(() => parseJobs(text), /invalid jobs value/);
  }
  checkLimit(5, { mode: "defer-output", parallel: 5 });
  checkLimit(5, { mode: "fail-fast", parallel: 1 });
  assert.throws(() => checkLimit(5, { mode: "defer-output", parallel: 4 }), /needs 5 targets at a time/);
});

test("defer-output: nothing is exported before everything is evaluated", async () => {
  const plans = { quick: {}, slow: { takesMs: 60 }, user: { links: ["quick"], takesMs: 30 } };
  const { events, outcomes, failure } = await run(plans, "defer-output");
  assert.equal(failure, "");
  assert.deepEqual([...outcomes].sort(), ["quick", "slow", "user"]);
  for (const name of Object.keys(plans)) {
    for (const other of Object.keys(plans)) before(events, `${other} evaluated`, `${name} exported`);
  }
});

test("defer-output: one that fails keeps all from being exported", async () => {
  const { events, outcomes, failure } = await run(
    { a: {}, b: { takesMs: 40, fails: true }, c: {} },
    "defer-output",
  );
  assert.equal(failure, "target b: b broke");
  assert.deepEqual(outcomes, []);
  assert.deepEqual(
    events.filter((event) => event.endsWith("exported")),
    [],
  );
  await assert.rejects(run({ a: {}, b: {} }, "defer-output,parallel=1"), /needs 2 targets at a time/);
});

test("fail-fast: what is exported stays, what runs is cancelled", async () => {
  const plans = { early: {}, bad: { takesMs: 40, fails: true }, late: { takesMs: 5000 } };
  const { outcomes, failure } = await run(plans, "");
  assert.equal(failure, "target bad: bad broke");
  assert.deepEqual(outcomes, ["early"]);
});

test("defer-error: the others go on, and all failures are told", async () => {
  const plans = {
    bad: { fails: true },
    user: { links: ["bad"] },
    worse: { takesMs: 20, fails: true },
    good: { takesMs: 60 },
  };
  const { outcomes, failure } = await run(plans, "defer-error");
  assert.deepEqual(outcomes, ["good"]);
  assert.deepEqual(failure.split("\n").sort(), [
    "target bad: bad broke",
    "target user: not built: target bad failed",
    "target worse: worse broke",
  ]);
});

test("linked targets: frontends answer first, then what is used is evaluated before its users", async () => {
  const plans = {
    app: { links: ["left", "right"] },
    left: { links: ["base"] },
    right: { links: ["base"] },
    base: {},
  };
  const free = await run(plans, "");
  assert.equal(free.failure, "");
  before(free.events, "app start", "base evaluated");
  for (const [first, second] of [
    ["base", "left"],
    ["base", "right"],
    ["left", "app"],
    ["right", "app"],
  ]) {
    before(free.events, `${first} evaluated`, `${second} evaluated`);
  }
  const limited = await run(plans, "1");
  assert.equal(limited.failure, "");
  assert.equal(limited.outcomes.length, 4);
  before(limited.events, "base evaluated", "left start");
});

test("a link to a target that isn't there is told of", async () => {
  await assert.rejects(run({ app: { links: ["nope"] } }, ""), (error) => {
    assert.ok(!isCanceled(error));
    return /failed to find target nope for context nope/.test(errorMessage(error));
  });
});
