import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type BakeOptions, readBake } from "./read.ts";
import { mutated, randomDefinition } from "./testing/definition-arbitrary.ts";
import { checkDefinition } from "./testing/definition-invariants.ts";
import { memoryHost } from "./testing/memory-host.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function read(text: string, env: Record<string, string> = {}, options: BakeOptions = {}) {
  return readBake([{ name: "docker-bake.hcl", data: bytes(text) }], memoryHost({ env }), options);
}

function messageOf(text: string, env: Record<string, string> = {}, options: BakeOptions = {}): string {
  const outcome = read(text, env, options);
  assert.ok(!outcome.ok);
  return outcome.failure.message;
}

/** `line(1)`, `line(2)` and so on. */
function lines(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i + 1)).join("\n");
}

test("random definitions give a result or a message", () => {
  fc.assert(
    fc.property(randomDefinition, ({ name, text }) => checkDefinition([{ name, data: bytes(text) }])),
    { numRuns: 300 },
  );
});

test("definitions with changed bytes give a result or a message", () => {
  const hcl = `variable "TOKEN" { type = number }
group "default" { targets = ["t-a"] }
target "x" {
  name = "t-\${v}"
  matrix = { v = ["a", "b"] }
  args = { A = upper("\${v}%{ if true }y%{ endif }"), B = try(target.x.nope, [for i in range(3) : i][0]) }
  output = [{ type = "local", dest = "out" }, "type=image,push=true"]
}
`;
  const compose = `x-b: &b {context: ., args: {A: "\${A:-x}"}}
services:
  a: {build: {<<: *b, secrets: [s], x-bake: {tags: [a, b]}}, env_file: [{path: e, required: false}]}
  b: {extends: a, build: {ulimits: {nofile: 5}, extra_hosts: [a=::1]}}
secrets: {s: {environment: A}}
`;
  const files = [
    { name: "docker-bake.hcl", data: bytes(hcl) },
    { name: "compose.yaml", data: bytes(compose) },
  ];
  fc.assert(fc.property(mutated(files), checkDefinition), { numRuns: 300 });
});

test("what would take forever, or all memory, is refused", () => {
  const target = (expr: string): string => `target "default" { args = { A = ${expr} } }`;
  const shared = lines(50, (i) => `a${i} = [a${i - 1}, a${i - 1}]`);
  assert.equal(
    messageOf(`a0 = [1]\n${shared}\n${target("length(a50)")}`),
    "a value has more than 4000000 elements",
  );
  const ten = '"aaaaaaaaaa"';
  const longer = lines(12, (i) => `s${i} = replace(s${i - 1}, "a", ${ten})`);
  assert.equal(
    messageOf(`s0 = ${ten}\n${longer}\n${target("strlen(s12)")}`),
    "a text is longer than 67108864 characters",
  );
  const matrix = 'target "t" {\n name = "t${a}-${b}"\n matrix = { a = range(1000), b = range(1000) }\n}';
  assert.match(messageOf(matrix), /a matrix may not produce more than 100000 targets/);
  assert.match(messageOf(target(`${"(".repeat(5000)}1${")".repeat(5000)}`)), /Nesting too deep/);
  assert.equal(messageOf(target(`1${"+1".repeat(30_000)}`)), "the definition is nested too deeply");
});

test("ancestors that are there many times over count once", () => {
  const chain = lines(200, (i) => `target "t${i}" { inherits = ["t${i - 1}", "t${i - 1}"] }`);
  const outcome = read(`target "t0" { tags = ["x"] }\n${chain}\ntarget "default" { inherits = ["t200"] }`);
  assert.ok(outcome.ok);
  assert.deepEqual(outcome.value.targets[0]?.tags, ["x"]);
});

test("names that JavaScript's objects have are names like others", () => {
  const outcome = read(
    `variable "__proto__" { default = "p" }
    variable "constructor" { default = { toString = "x" } }
    function "hasOwnProperty" {
      params = [valueOf]
      result = "<\${valueOf}>"
    }
    target "__proto__" {
      args = { __proto__ = __proto__, constructor = constructor.toString, toString = hasOwnProperty("v") }
      labels = { __proto__ = "l" }
      contexts = { __proto__ = "." }
      extra-hosts = { __proto__ = "1.2.3.4" }
    }
    target "toString" { inherits = ["__proto__"] }
    group "default" { targets = ["__proto__", "toString"] }
    group "constructor" { targets = ["default"] }`,
    {},
    { targets: ["constructor"], set: ["__proto__.args.__proto__=set", "*.labels.constructor=c"] },
  );
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  const [own, heir] = outcome.value.targets;
  assert.deepEqual(own && [...own.args], [
    ["__proto__", "set"],
    ["constructor", "x"],
    ["toString", "<v>"],
  ]);
  assert.equal(heir?.args.get("__proto__"), "set");
  assert.equal(own?.labels.get("__proto__"), "l");
  assert.equal(heir?.labels.get("constructor"), "c");
  const printed = outcome.value.print();
  assert.match(printed, /"__proto__": \{\n\s+"context"/);
  assert.match(printed, /"extra-hosts": \{\n\s+"__proto__": "1\.2\.3\.4"/);
  assert.deepEqual(Object.keys(Object.prototype), []);
});

test("values of variables that are secrets by name stay out of messages", () => {
  const definition = 'variable "API_TOKEN" { type = number }\ntarget "default" { args = { A = API_TOKEN } }';
  const hidden = messageOf(definition, { API_TOKEN: "hunter2!" });
  assert.doesNotMatch(hidden, /hunter2/);
  assert.match(hidden, /failed to parse API_TOKEN as number: .*\*\*\*/);
  assert.doesNotMatch(messageOf(definition, {}, { vars: ["API_TOKEN=hunter3!"] }), /hunter3/);
  const parsed =
    'variable "DB_PASSWORD" { default = "" }\ntarget "default" { args = { A = parseint(DB_PASSWORD, 10) } }';
  assert.doesNotMatch(messageOf(parsed, { DB_PASSWORD: "hunter2!" }), /hunter2/);
  // Others are shown: that is what helps.
  assert.match(messageOf('variable "N" { type = number }', { N: "many" }), /"many"/);
});
