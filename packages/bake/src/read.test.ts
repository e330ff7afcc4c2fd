import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { warningTexts } from "./language/hints.ts";
import { type BakeOptions, type BakePlan, readBake, readDefinition } from "./read.ts";
import { type MemoryMachine, memoryHost } from "./testing/memory-host.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function failure(text: string, name = "docker-bake.hcl", options: BakeOptions = {}): string {
  const outcome = readBake([{ name, data: bytes(text) }], memoryHost({}), options);
  assert.ok(!outcome.ok);
  return outcome.failure.message;
}

function plan(text: string, options: BakeOptions = {}, machine: MemoryMachine = {}): BakePlan {
  const outcome = readBake([{ name: "docker-bake.hcl", data: bytes(text) }], memoryHost(machine), options);
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  return outcome.value;
}

test("targets become typed build requests", () => {
  const { targets } = plan(
    `
    target "default" {
      context = "./app"
      args = { V = upper("x"), N = null }
      platforms = ["linux/arm64"]
      tags = ["example.com/app:1"]
      secret = ["id=token,env=TOKEN"]
      shm-size = "64m"
      ulimits = ["nofile=1:2"]
      resources = { memory = "1g" }
      output = ["type=local,dest=out"]
    }`,
    {},
    { env: { TOKEN: "t" } },
  );
  const [request] = targets;
  assert.equal(targets.length, 1);
  assert.equal(request?.context, "app");
  assert.deepEqual([...(request?.args ?? [])], [["V", "X"]]);
  assert.deepEqual(request?.platforms, ["linux/arm64"]);
  assert.equal(request?.shmSizeBytes, 64 << 20);
  assert.deepEqual(request?.ulimits, [{ name: "nofile", soft: 1, hard: 2 }]);
  assert.equal(request?.resources?.memoryBytes, 1 << 30);
});

test("a failure has an excerpt, and all diagnostics have places", () => {
  const text = 'target "default" {\n  args = { A = bar }\n  tags = [foo]\n}\n';
  const outcome = readBake([{ name: "docker-bake.hcl", data: bytes(text) }], memoryHost({}));
  assert.ok(!outcome.ok);
  assert.match(outcome.failure.excerpt, /^docker-bake\.hcl:2\n-{20}\n {3}1 \| {5}target/);
  assert.ok(outcome.diagnostics.length >= 2);
});

test("variables that Compose files use and that aren't set are told of, once", () => {
  const compose = "services:\n  a:\n    image: a:${TAG}${TAG}\n    env_file: [a.env]\n    build: ${DIR:-.}\n";
  const files = { "a.env": "A=$INNER\n" };
  const data = bytes(compose);
  const outcome = readBake([{ name: "compose.yaml", data }], memoryHost({ files }));
  assert.ok(outcome.ok);
  const told = (name: string): string => `The "${name}" variable is not set. Defaulting to a blank string.`;
  assert.deepEqual(warningTexts(outcome.value.diagnostics), [told("TAG"), told("INNER")]);
});

test("what a definition's blocks don't know is told of, with the nearest name", () => {
  const { diagnostics } = plan('target "default" {\n  tag = ["a"]\n}\n');
  assert.deepEqual(warningTexts(diagnostics), [
    'docker-bake.hcl:2,3-6: tag in target default is not known and has no effect. Did you mean "tags"?',
  ]);
});

test("keys of 0.38 work in both numbers", () => {
  const text = 'target "default" {\n  ulimits = ["nproc=1:1"]\n}\n';
  for (const key of ["platform", "platforms"]) {
    const { targets } = plan(text, { set: [`*.${key}=linux/arm64`] });
    assert.deepEqual(targets[0]?.platforms, ["linux/arm64"]);
  }
  for (const key of ["ulimit", "ulimits"]) {
    const { targets } = plan(text, { set: [`*.${key}=nofile=1:2`] });
    assert.deepEqual(targets[0]?.ulimits, [{ name: "nofile", soft: 1, hard: 2 }]);
  }
  assert.equal(plan(text, { set: ["*.network=none"] }).targets[0]?.network, "none");
});

test("permissions that aren't granted are asked for", () => {
  const text = 'target "default" {\n  network = "host"\n  output = ["type=local,dest=/data"]\n}\n';
  const machine = { files: { "/data/x": "" } };
  assert.notEqual(plan(text, {}, machine).entitlementPrompt, undefined);
  const granted = plan(text, { allow: ["network.host", "fs.write=/data"] }, machine);
  assert.equal(granted.entitlementPrompt, undefined);
});

test("secret values are never printed", () => {
  const text = `
    variable "TOKEN" { default = "" }
    target "default" {
      secret = ["id=a,env=SECRET", { id = "b", src = "s.txt" }]
    }`;
  const machine = { env: { SECRET: "hunter2" }, files: { "s.txt": "hunter2" } };
  const { print, list, targets } = plan(text, {}, machine);
  const shown = print() + list("targets") + list("variables") + JSON.stringify(targets);
  assert.ok(!shown.includes("hunter2"));
});

test("a file is named in every spelling of a prototype's members", () => {
  const text = 'target "__proto__" {\n  args = { __proto__ = "1", toString = "2" }\n}\n';
  const { print, targets } = plan(text, { targets: ["__proto__"] });
  assert.deepEqual([...(targets[0]?.args ?? [])].sort(), [
    ["__proto__", "1"],
    ["toString", "2"],
  ]);
  assert.match(print(), /"__proto__": "1"/);
});

test("growth is bounded", () => {
  const wide = `target "t" {\n  name = "t-\${a}-\${b}-\${c}"\n  matrix = { a = range(1000), b = range(1000), c = range(1000) }\n}\n`;
  assert.match(failure(wide, "docker-bake.hcl", { targets: ["t"] }), /matrix/);
  const aliases = ["a: &a [x, x, x, x, x, x, x, x, x, x]"];
  for (let i = 0; i < 10; i++) {
    const previous = String.fromCharCode(97 + i);
    const next = String.fromCharCode(98 + i);
    aliases.push(`${next}: &${next} [${Array(10).fill(`*${previous}`).join(", ")}]`);
  }
  assert.match(failure(aliases.join("\n"), "compose.yaml"), /excessive aliasing/);
  const nested = `services: {a: {build: {context: "${"${A:-".repeat(3000)}x${"}".repeat(3000)}"}}}`;
  assert.match(failure(nested, "compose.yaml"), /nested too deeply/);
  assert.notEqual(failure(`${"[".repeat(5000)}${"]".repeat(5000)}`, "compose.yaml"), "");
  const calls = 'function "f" {\n  params = [x]\n  result = f(x)\n}\ntarget "default" { tags = [f("a")] }\n';
  assert.notEqual(failure(calls), "");
});

const WORDS = [
  "target",
  "group",
  "variable",
  '"a"',
  '"default"',
  "{",
  "}",
  "=",
  "\n",
  "tags",
  "[",
  "]",
  "inherits",
  "matrix",
  "name",
  "args",
  "target.a.tags",
  "${",
  '"',
  "default",
  "type",
  "string",
  "null",
  "function",
  "params",
  "result",
  "validation",
  "1",
  ",",
];
const YAML = [
  "services:",
  "\n",
  "  ",
  "a:",
  "build:",
  " .",
  "&x",
  "*x",
  "<<: ",
  "- ",
  "{",
  "}",
  "[",
  "]",
  "extends: a",
  "${A",
  "}",
  ":-",
  "secrets:",
  "!reset",
  "|",
  "#",
  "'",
  "x-bake:",
  "include:",
  "args:",
];

function texts(words: readonly string[]): fc.Arbitrary<string> {
  return fc
    .array(fc.constantFrom(...words), { maxLength: 50 })
    .map((parts) => parts.join(words === YAML ? "" : " "));
}

test("no definition makes evaluation throw", () => {
  const host = memoryHost({});
  const cases = fc.oneof(
    fc.tuple(fc.constant("docker-bake.hcl"), texts(WORDS)),
    fc.tuple(fc.constant("docker-bake.json"), fc.json()),
    fc.tuple(fc.constant("compose.yaml"), texts(YAML)),
    fc.tuple(fc.constant("other"), fc.string()),
  );
  fc.assert(
    fc.property(
      cases,
      fc.array(fc.constantFrom("*.tags=x", "a.args.A=1", "*.output=type=docker", "bad", "*.x.y+=z")),
      ([name, text], set) => {
        const file = { name, data: bytes(text) };
        readBake([file], host, { set });
        readDefinition([file], host);
      },
    ),
    { numRuns: 400 },
  );
});
