/** Random definitions: soups of words, expressions that parse, and recorded definitions with bytes changed. */
import fc from "fast-check";
import type { BakeFile } from "../host.ts";

const HCL_WORDS = [
  ...'{}[]()=,:?.*+-/%<>!&|\n"'.split(""),
  'target "a"',
  'group "default"',
  'variable "v"',
  'function "f"',
  "tags",
  "inherits",
  "matrix",
  "name",
  "args",
  "contexts",
  "default",
  "type",
  "params",
  "result",
  "validation",
  "condition",
  "target.a.tags",
  "target.__proto__.args",
  "${",
  "%{",
  "~}",
  "<<EOT\n",
  "<<-EOT\n",
  "\nEOT\n",
  "for x in",
  "if",
  "...",
  "optional(string)",
  "null",
  "true",
  "1e9",
  "constructor",
  "__proto__",
  "\u0000",
  "\ufeff",
  "é",
];
const YAML_WORDS = [
  "services:",
  "\n",
  "  ",
  "a:",
  "__proto__:",
  "build:",
  " .",
  "&x",
  "*x",
  "<<: ",
  "- ",
  ..."{}[]|#'\",".split(""),
  "extends: a",
  "extends: {file: compose.yaml, service: a}",
  "include: [compose.yaml]",
  "${A",
  "$",
  ":-",
  ":?e}",
  "secrets:",
  "!reset",
  "!!binary",
  "x-bake:",
  "args:",
  "\t",
  "---\n",
];

const NAMES = ["v", "w", "toString", "x"];
const FUNCTIONS = [
  "upper",
  "length",
  "jsonencode",
  "concat",
  "merge",
  "try",
  "can",
  "format",
  "flatten",
  "f",
];

const { expression } = fc.letrec<{ expression: string }>((tie) => {
  const inner = tie("expression");
  return {
    expression: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.constantFrom(
        "null",
        "true",
        "1",
        "-2.5e3",
        '"a"',
        '"${v}-x"',
        '"%{ if true }a%{ else }b%{ endif }"',
        ...NAMES,
      ),
      fc
        .tuple(inner, fc.constantFrom("+", "-", "*", "/", "%", "==", "!=", "<", "&&", "||"), inner)
        .map((parts) => parts.join(" ")),
      fc.tuple(inner, inner, inner).map(([a, b, c]) => `(${a} ? ${b} : ${c})`),
      fc.array(inner, { maxLength: 3 }).map((items) => `[${items.join(", ")}]`),
      fc
        .array(fc.tuple(fc.constantFrom("a", '"b"', "(v)", "__proto__"), inner), { maxLength: 3 })
        .map((items) => `{${items.map(([key, value]) => `${key} = ${value}`).join(", ")}}`),
      fc.tuple(inner, inner).map(([a, b]) => `[for k, x in ${a} : ${b} if k != x]`),
      fc.tuple(inner, inner, inner).map(([a, b, c]) => `{for x in ${a} : ${b} => ${c}...}`),
      fc.tuple(inner, inner).map(([a, b]) => `${a}[${b}]`),
      inner.map((a) => `${a}[*].a`),
      fc
        .tuple(fc.constantFrom(...FUNCTIONS), fc.array(inner, { maxLength: 3 }), fc.constantFrom("", "..."))
        .map(([name, args, dots]) => `${name}(${args.join(", ")}${args.length > 0 ? dots : ""})`),
    ),
  };
});

function words(list: readonly string[], separator: string): fc.Arbitrary<string> {
  return fc.array(fc.constantFrom(...list), { maxLength: 60 }).map((parts) => parts.join(separator));
}

const definition = fc.tuple(expression, expression, expression).map(
  ([a, b, c]) => `variable "v" { default = ${a} }
w = ${b}
function "f" {
  params = [x]
  result = ${b}
}
target "default" {
  name = "t-\${x}"
  matrix = { x = ["1", "2"] }
  args = { A = jsonencode(${c}), B = ${a} }
  tags = [for x in ["a"] : "\${x}"]
}
`,
);

/** Definitions under the names that say how they are read. */
export const randomDefinition: fc.Arbitrary<{ readonly name: string; readonly text: string }> = fc.oneof(
  definition.map((text) => ({ name: "docker-bake.hcl", text })),
  words(HCL_WORDS, " ").map((text) => ({ name: "docker-bake.hcl", text })),
  words(HCL_WORDS, "").map((text) => ({ name: "other", text })),
  words(YAML_WORDS, "").map((text) => ({ name: "compose.yaml", text })),
  fc
    .json()
    .map((text) => ({ name: "docker-bake.json", text: `{"target":{"a":${text}},"variable":${text}}` })),
  fc.json().map((text) => ({ name: "compose.yaml", text: `{"services":{"a":${text}},"secrets":${text}}` })),
);

/** A known definition with some of its bytes taken out, doubled, moved or replaced. */
export function mutated(files: readonly BakeFile[]): fc.Arbitrary<readonly BakeFile[]> {
  const edit = fc.record({
    at: fc.nat(),
    length: fc.nat(20),
    kind: fc.constantFrom("cut", "copy", "move", "insert"),
    to: fc.nat(),
    bytes: fc.oneof(
      fc.uint8Array({ maxLength: 4 }),
      fc.constantFrom(...HCL_WORDS, ...YAML_WORDS).map(encoded),
    ),
  });
  return fc
    .tuple(fc.nat(Math.max(0, files.length - 1)), fc.array(edit, { minLength: 1, maxLength: 6 }))
    .map(([index, edits]) =>
      files.map((file, i) => (i === index ? { ...file, data: edits.reduce(applied, file.data) } : file)),
    );
}

interface Edit {
  readonly at: number;
  readonly length: number;
  readonly kind: string;
  readonly to: number;
  readonly bytes: Uint8Array;
}

function encoded(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function applied(data: Uint8Array, { at, length, kind, to, bytes }: Edit): Uint8Array {
  const start = at % (data.length + 1);
  const piece = data.slice(start, start + length);
  const without = joined(data.slice(0, start), data.slice(start + length));
  if (kind === "cut") return without;
  if (kind === "insert") return joined(data.slice(0, start), bytes, data.slice(start));
  const base = kind === "move" ? without : data;
  const place = to % (base.length + 1);
  return joined(base.slice(0, place), piece, base.slice(place));
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
