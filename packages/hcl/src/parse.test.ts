import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type Diagnostic,
  formatDiagnostic,
  formatDiagnostics,
  formatExcerpt,
  hasErrors,
  INITIAL_POS,
  marshalJson,
  parseExpression,
  parseHcl,
  parseHclJson,
  standardFunctions,
  stringValue,
  type Value,
  WorkLimitError,
  withWorkLimit,
} from "./index.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const functions = standardFunctions({
  now: () => new Date("2026-01-02T03:04:05Z"),
  randomBytes: (count) => new Uint8Array(count),
  homeDir: () => "/home/me",
});

interface Outcome {
  readonly value: Value;
  readonly diagnostics: readonly Diagnostic[];
}

function evaluate(text: string): Outcome {
  const parsed = parseExpression(text, "test.hcl", INITIAL_POS);
  const diagnostics = [...parsed.diagnostics];
  const variables = new Map([["name", stringValue("me")]]);
  return { value: parsed.value.value({ variables, functions }, diagnostics), diagnostics };
}

function json(text: string): string {
  const { value, diagnostics } = evaluate(text);
  assert.equal(formatDiagnostics(diagnostics), "no diagnostics", text);
  return marshalJson(value, value.type);
}

test("expressions have the values that HCL gives them", () => {
  const expected: readonly (readonly [string, string])[] = [
    ["1 + 2 * 3", "7"],
    ["0.1 + 0.2 == 0.3", "true"],
    ["1e3", "1000"],
    ['"5" * 2', "10"],
    ["-(3)", "-3"],
    ['true ? "a" : "b"', '"a"'],
    ["[for i, x in [3, 4]: x if i > 0]", "[4]"],
    ['{for k, v in {a = "x", b = "x"}: v => k...}', '{"x":["a","b"]}'],
    ["[{a = 1}, {a = 2}][*].a", "[1,2]"],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: HCL's own templates
    ['"${name}-%{ if true ~} yes %{~ endif }"', '"me-yes"'],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: HCL's own templates
    ['"$${x} %%{y}"', '"${x} %{y}"'],
    ["<<-E\n    a\n      b\n  E\n", '"a\\n  b\\n"'],
    ["max([1, 5, 2]...)", "5"],
    ['{"__proto__" = 1, constructor = 2}', '{"__proto__":1,"constructor":2}'],
  ];
  for (const [text, want] of expected) assert.equal(json(text), want, text);
});

test("numbers keep all their digits", () => {
  assert.equal(json("123456789012345678901234567890 + 1"), "123456789012345678901234567891");
  assert.equal(json("99999999999999999999.5 * 2"), "199999999999999999999");
  assert.equal(json("jsonencode(0.1)"), '"0.1"');
});

test("functions complain about their arguments with the place", () => {
  const { diagnostics } = evaluate("uper(1)");
  assert.equal(
    formatDiagnostics(diagnostics),
    'test.hcl:1,1-5: Call to unknown function; There is no function named "uper". Did you mean "upper"?',
  );
});

test("all syntax errors of a file are told, with an excerpt", () => {
  const source = 'target "a" {\n  tags = = 1\n}\ntarget "b" {\n  x y\n}\n';
  const { diagnostics, value } = parseHcl(bytes(source), "a.hcl");
  assert.deepEqual(
    diagnostics.map((item) => formatDiagnostic(item).split(";", 1)[0]),
    ["a.hcl:2,10-11: Invalid expression", "a.hcl:5,6-6,1: Invalid block definition"],
  );
  const { content } = value.body.partialContent(
    { attributes: [], blocks: [{ type: "target", labels: ["name"] }] },
    [],
  );
  assert.equal(content.blocks.length, 2, "what comes after an error is still read");
  const [first] = diagnostics;
  assert.match(formatExcerpt(source, first!.subject!), / {3}2 \| >>> {3}tags = = 1/);
});

test("JSON has places too", () => {
  const { diagnostics } = parseHclJson(bytes('{"a": [1,]}'), "a.json");
  assert.equal(formatDiagnostic(diagnostics[0]!).split(":")[0], "a.json");
});

test("deep nesting is refused or read, never a crash", () => {
  for (const text of [
    "(".repeat(20_000),
    "[".repeat(20_000),
    `"${"${".repeat(5000)}`,
    "!".repeat(20_000),
    "{a=".repeat(9000),
  ]) {
    const { diagnostics } = parseExpression(text, "deep.hcl", INITIAL_POS);
    assert.ok(hasErrors(diagnostics));
  }
  assert.ok(hasErrors(parseHclJson(bytes("[".repeat(100_000)), "deep.json").diagnostics));
});

test("ranges and padding are bounded", () => {
  assert.ok(hasErrors(evaluate("range(100000)").diagnostics));
  assert.ok(hasErrors(evaluate("nosuch.attr").diagnostics));
});

const FRAGMENTS = [
  "a",
  "1",
  '"',
  "${",
  "%{",
  "}",
  "{",
  "[",
  "]",
  "(",
  ")",
  "=",
  "for",
  " in ",
  ":",
  "=>",
  "...",
  "~",
  "<<E\n",
  "E\n",
  "?",
  "upper",
  ",",
  ".",
  "*",
  "\n",
  "#",
  "null",
  "$$",
  "\\u",
  "é",
  "\u0000",
];
const hostile = fc.array(fc.constantFrom(...FRAGMENTS), { maxLength: 40 }).map((parts) => parts.join(""));

test("any text parses and evaluates without throwing", () => {
  fc.assert(
    fc.property(fc.oneof(hostile, fc.string()), (text) => {
      const { diagnostics } = evaluate(text);
      for (const item of diagnostics) formatDiagnostic(item);
      parseHcl(bytes(text), "x.hcl");
      parseHclJson(bytes(text), "x.json");
    }),
    { numRuns: 400 },
  );
});

test("encoded JSON decodes to the same", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), (value) => {
      const text = JSON.stringify(JSON.stringify(value)).replaceAll(/[$%]\{/g, (mark) => `${mark[0]}${mark}`);
      const decoded = evaluate(`jsonencode(jsondecode(${text.replaceAll(/\\u([dD][89abAB])/g, "\\\\u$1")}))`);
      if (hasErrors(decoded.diagnostics)) return;
      assert.equal(typeof decoded.value.string, "string");
    }),
    { numRuns: 100 },
  );
});

test("evaluation with a bound ends", () => {
  const loops = "[for a in range(100) : [for b in range(100) : [for c in range(100) : c]]]";
  for (const text of [loops, "distinct([for a in range(1000) : a])", "[for a in range(600) : upper(name)]"]) {
    assert.throws(() => withWorkLimit(() => evaluate(text), 1000), WorkLimitError, text);
    // The bound is only for what runs within.
    assert.equal(evaluate("1 + 1").diagnostics.length, 0);
  }
  assert.equal(
    withWorkLimit(() => json("length([for a in range(500) : a])"), 1000),
    "500",
  );
});
