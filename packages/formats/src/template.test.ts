import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTemplate } from "./index.ts";

const run = (source: string, data: unknown = {}): string => parseTemplate(source).run(data);

test("text, fields, pipelines, functions", () => {
  const data = {
    Name: "web",
    Tags: ["a", "b"],
    M: new Map([["k", "v"]]),
    N: 3,
    In: { X: 1 },
    F: (s: string) => `<${s}>`,
  };
  const table: [string, string][] = [
    ["{{.Name}}", "web"],
    ["a {{- .Name -}} b", "awebb"],
    ["{{/* c */}}x{{- /* d */ -}} y", "xy"],
    ['{{printf "%s-%d" .Name .N}}', "web-3"],
    ['{{.Name | upper | printf "%q"}}', '"WEB"'],
    ['{{join .Tags ","}}', "a,b"],
    ["{{json .In}}", '{"X":1}'],
    ["{{.M.k}} {{.M.z}}", "v <no value>"],
    ["{{.In.X}} {{.Tags}} {{.M}}", "1 [a b] map[k:v]"],
    ['{{.F "q"}}', "<q>"],
    ["{{range $i, $t := .Tags}}{{$i}}={{$t}};{{end}}", "0=a;1=b;"],
    ["{{range .Tags}}{{.}}{{$.Name}} {{else}}none{{end}}", "aweb bweb "],
    ["{{range .M}}{{.}}{{end}}", "v"],
    ['{{range .Tags}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"],
    ["{{if and .Name (gt .N 2)}}y{{else if .N}}z{{else}}n{{end}}", "y"],
    ["{{if not .Name}}y{{else if eq .N 1 3}}z{{end}}", "z"],
    ["{{with .In}}{{.X}}{{end}}", "1"],
    ["{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"],
    ['{{len .Tags}} {{index .Tags 1}} {{index .M "k"}} {{(index .Tags 0) | len}}', "2 b v 1"],
    ['{{define "t"}}[{{.}}]{{end}}{{template "t" .N}}', "[3]"],
    ["{{\"}}\"}}{{`a`}}{{'a'}}", "}}a97"],
    ["{{slice .Name 1 2}}", "e"],
  ];
  for (const [source, want] of table) assert.equal(run(source, data), want, source);
});

test("errors", () => {
  const table: [string, RegExp][] = [
    ["{{.Nope}}", /can't evaluate field Nope in type/],
    ["{{", /^BuildError: template: :1: unclosed action/],
    ["{{if .A}}", /unexpected EOF/],
    ["{{end}}", /unexpected {{end}}/],
    ["{{nope}}", /function "nope" not defined/],
    ["\n{{.A | }}", /template: :2: missing value for command/],
    ['{{template "x"}}', /template "x" not defined/],
    ['{{define "a"}}{{template "a"}}{{end}}{{template "a"}}', /maximum template depth/],
    ["{{.constructor}}", /can't evaluate field constructor/],
    ["{{.__proto__}}", /can't evaluate field __proto__/],
    ["{{.toString}}", /can't evaluate field toString/],
    ["{{$x}}", /undefined variable "\$x"/],
  ];
  for (const [source, want] of table) assert.throws(() => run(source), want, source);
});
