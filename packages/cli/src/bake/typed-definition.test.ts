import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type BakePlan, ejectPlan, readBake } from "@kiln/bake";
import { errorMessage } from "@kiln/base";
import { nodeBakeHost } from "../bake-host.ts";
import { definitionPermissions, evaluateDefinitions } from "./evaluate-definition.ts";

const folder = mkdtempSync(join(tmpdir(), "kiln-typed-"));
after(() => rmSync(folder, { recursive: true }));

interface Evaluation {
  readonly allow?: readonly string[];
  readonly vars?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

/** Evaluates a text as `kiln.bake.ts`. */
async function evaluate(text: string, given: Evaluation = {}): Promise<{ plan: BakePlan; printed: string }> {
  const { allow = [], vars = [], env = {}, timeoutMs } = given;
  const host = nodeBakeHost({ cwd: folder, env, localPlatform: "linux/amd64" });
  let printed = "";
  const file = { name: "kiln.bake.ts", data: new TextEncoder().encode(text) };
  const files = await evaluateDefinitions([file], host, {
    permissions: definitionPermissions(allow).permissions,
    vars,
    onOutput: (output) => {
      printed += output;
    },
    signal: new AbortController().signal,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const outcome = readBake(files, host, { vars });
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  return { plan: outcome.value, printed };
}

async function failure(text: string, given: Evaluation = {}): Promise<string> {
  try {
    await evaluate(text, given);
  } catch (error) {
    return errorMessage(error);
  }
  return assert.fail("the definition was accepted");
}

const HEAD = 'import { defineBake } from "@kiln/bake";\n';

test("objects and functions are definitions, and variables have types", async () => {
  const object = await evaluate(
    `${HEAD}export default defineBake({ targets: { default: { tags: ["a"] } } });`,
  );
  assert.deepEqual(object.plan.targets[0]?.tags, ["a"]);
  const text = `${HEAD}
interface Service { readonly name: string }
export default defineBake(async ({ variable, localPlatform }) => {
  const service: Service = { name: variable("NAME", "x", "who") };
  console.log("evaluated", { tag: service.name });
  return { targets: { default: {
    args: { TEXT: service.name, NUMBER: variable("NUMBER", 1) + 1, BOOL: !variable("BOOL", false), NONE: variable("NONE") ?? "-" },
    labels: { dollar: "\${x} %{y}", skipped: undefined },
    platforms: [localPlatform],
  } } };
});`;
  const { plan, printed } = await evaluate(text, {
    vars: ["NAME=var"],
    env: { NAME: "env", NUMBER: "41", BOOL: "t" },
  });
  const [target] = plan.targets;
  assert.deepEqual(Object.fromEntries(target!.args), { TEXT: "var", NUMBER: "42", BOOL: "false", NONE: "-" });
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the text as it is
  assert.equal(target!.labels.get("dollar"), "${x} %{y}");
  assert.deepEqual(target!.platforms, ["linux/amd64"]);
  assert.equal(printed, 'evaluated {"tag":"var"}\n');
  assert.deepEqual(plan.variables.map(({ name, description }) => [name, description]).sort(), [
    ["BOOL", ""],
    ["NAME", "who"],
    ["NONE", ""],
    ["NUMBER", ""],
  ]);
  const off = await evaluate(text, { env: { NAME: "env", BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP: "1" } });
  assert.equal(off.plan.targets[0]?.args.get("TEXT"), "x");
});

test("an ejected definition evaluates to the same", async () => {
  const text = `${HEAD}export default defineBake({
    groups: { default: ["app"] },
    targets: {
      base: { dockerfileInline: "FROM scratch\\n# \${x}" },
      app: { inherits: ["base"], contexts: { base: "target:base" }, cacheFrom: ["type=gha"], resources: { memory: "1g" } },
    },
  });`;
  const { plan } = await evaluate(text);
  const again = await evaluate(ejectPlan(plan, "ts"));
  assert.equal(again.plan.print(), plan.print());
});

test("mistakes are told with their places", async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [`${HEAD}const x: = 1;\n`, /^kiln\.bake\.ts:2: Unexpected token/],
    ["enum A { B }\nexport default {};", /^kiln\.bake\.ts:1: TypeScript enum is not supported/],
    ["\n\nthrow new TypeError('no');", /^kiln\.bake\.ts:3:7: no$/],
    ["throw 'text';", /^kiln\.bake\.ts: thrown: text$/],
    ["const a = 1;\nimport './other.ts';\n", /^kiln\.bake\.ts:2: import of "\.\/other\.ts" is not allowed/],
    ["import { x } from '@kiln/bake';", /^kiln\.bake\.ts:1: .*export named 'x'/],
    ["export const a = 1;", /^kiln\.bake\.ts: there is no default export/],
    ["export default { targets: { a: { tags: 1n } } };", /^kiln\.bake\.ts: .*BigInt/],
    [
      "export default {\n targets: {\n  app: { platfroms: [] } } };",
      /^kiln\.bake\.ts:3: target "app": unknown attribute "platfroms"\. Did you mean "platforms"\?$/,
    ],
    [
      'export default {\n targets: {\n  app: {\n   cacheFrom: [{ ref: "x" }] } } };',
      /^kiln\.bake\.ts:4: target "app": "cacheFrom": Unsuitable value: type required for/,
    ],
    [
      'const app = { tags: [],\n output: ["image,x"] };\nexport default { targets: { app } };',
      /^kiln\.bake\.ts(?::2)?: target "app": "output": Unsuitable value: invalid value image$/,
    ],
    ["await new Promise(() => {});", /^kiln\.bake\.ts: evaluation ended without a result/],
    ["export default () => undefined;", /^kiln\.bake\.ts: the definition must be an object, not null$/],
    [
      "export default ({ variable }) => ({ targets: { a: { args: { N: variable('N', 1) } } } });",
      /^kiln\.bake\.ts:1:\d+: variable N: "many" is not a number$/,
    ],
  ];
  for (const [text, message] of cases) assert.match(await failure(text, { env: { N: "many" } }), message);
});

test("a definition reaches neither files, network, processes nor the environment", async () => {
  const text = `
const found = {};
const probe = async (name, work) => {
  try { found[name] = "reached " + String(await work()); } catch (error) { found[name] = "refused"; }
};
const all = globalThis;
await probe("process", () => all.process.env);
await probe("builtin", () => all.process.getBuiltinModule("fs"));
await probe("fetch", () => all.fetch("http://127.0.0.1:1"));
await probe("require", () => all.require("fs"));
await probe("function", () => Function("return 1")());
await probe("constructor", () => (async () => 1).constructor("return 1")());
await probe("stream", () => console._stdout.constructor);
for (const name of ["fs", "node:fs", "node:net", "node:child_process", "node:worker_threads", "node:module", "./x.js", "file:///etc/hostname", "data:text/javascript,export default 1", "https://example.com/x.js"])
  await probe(name, () => import(name));
export default { targets: { default: { args: found } } };`;
  const { plan } = await evaluate(text, { env: { SECRET: "hidden" } });
  const args = [...plan.targets[0]!.args];
  assert.deepEqual(
    args.filter(([, value]) => value !== "refused"),
    [],
  );
  assert.equal(args.length, 17);
});

test("time, memory and output are bounded", async () => {
  assert.match(
    await failure("for (;;);", { timeoutMs: 500 }),
    /evaluation was stopped: it takes longer than 0\.5 seconds/,
  );
  // On a busy machine the other bounds must come before the time's.
  const patient = { timeoutMs: 120_000 };
  assert.match(
    await failure("const a = [];\nfor (;;) a.push(new Uint8Array(5e7).fill(1));", patient),
    /needs more than 1024 MiB/,
  );
  assert.match(await failure("for (;;) console.log('x'.repeat(1e5));", patient), /it prints too much/);
  const big = "export default { targets: { a: { args: { X: 'y'.repeat(2e7) } } } };";
  assert.match(await failure(big, patient), /its result is too large/);
});

test("--allow definition.read opens files, and nothing beside them", async () => {
  mkdirSync(join(folder, "lib"), { recursive: true });
  writeFileSync(join(folder, "lib/shared.ts"), "export const version: string = 'v1';");
  writeFileSync(join(folder, "lib/version"), "2");
  writeFileSync(join(folder, "other"), "secret");
  const text = `
import { readFileSync } from "node:fs";
import { version } from "./lib/shared.ts";
const read = (name: string): string => readFileSync(new URL(name, import.meta.url), "utf8");
export default { targets: { default: { args: { version, file: read("lib/version") } } } };`;
  assert.match(await failure(text), /import of "node:fs" is not allowed/);
  const allow = ["definition.read=lib"];
  const { plan } = await evaluate(text, { allow });
  assert.deepEqual(Object.fromEntries(plan.targets[0]!.args), { version: "v1", file: "2" });
  assert.match(await failure(text.replace("lib/version", "other"), { allow }), /restricted/);
  assert.match(await failure('import "node:child_process";', { allow }), /is not allowed/);
  assert.match(await failure(text, { allow: ["definition.read=nothing"] }), /nothing: no such file/);
});

test("--allow definition.network opens the network", async () => {
  const server = createServer((_request, response) => response.end("answer"));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const text = `export default { targets: { default: { args: { A: await (await fetch("${url}")).text() } } } };`;
    assert.match(await failure(text), /fetch is not defined/);
    const { plan } = await evaluate(text, { allow: ["definition.network"] });
    assert.equal(plan.targets[0]?.args.get("A"), "answer");
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("permissions of definitions are told from those of builds", () => {
  const { permissions, others } = definitionPermissions([
    "fs.read=/a",
    "definition.read=/b",
    "network.host",
    "definition.network",
  ]);
  assert.deepEqual(permissions, { read: ["/b"], network: true });
  assert.deepEqual(others, ["fs.read=/a", "network.host"]);
  assert.throws(() => definitionPermissions(["definition.read"]), /needs a path/);
});
