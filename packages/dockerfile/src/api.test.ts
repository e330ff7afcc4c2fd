import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "@kiln/oci";
import { checkDockerfile, compileDockerfile, lintDockerfile, parseDockerfile } from "./index.ts";

test("all mistakes of a file in one run, with ranges and excerpts", () => {
  const text = "FROM alpine\nRUNN x\nCOPY --chwon=a b c\nENV A\nCMD ok\n";
  const { diagnostics, ast } = parseDockerfile(text, { filename: "My.Dockerfile" });
  assert.deepEqual(
    diagnostics.map(({ message }) => message),
    [
      "ENV must have two arguments",
      "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
      "dockerfile parse error on line 3: unknown flag: --chwon (did you mean chown?)",
    ],
  );
  assert.deepEqual(diagnostics[1]!.ranges, [
    { start: { line: 2, character: 0 }, end: { line: 2, character: 0 } },
  ]);
  assert.match(
    diagnostics[1]!.excerpt,
    /^My\.Dockerfile:2\n-+\n {3}1 \| {5}FROM alpine\n {3}2 \| >>> RUNN x\n/,
  );
  assert.deepEqual(
    ast.stages[0]!.instructions.map(({ kind }) => kind),
    ["cmd"],
  );
});

test("findings without a build", () => {
  const names = lintDockerfile("from alpine AS Base\nRUN a\nRUN b\n", {}).map(({ rule }) => rule?.name);
  assert.deepEqual(names, ["StageNameCasing", "FromAsCasing", "ConsistentInstructionCasing"]);
  assert.deepEqual(lintDockerfile("# check=skip=all\nfrom alpine AS Base\n"), []);
  assert.equal(lintDockerfile("FROM a\n", { check: "x" })[0]!.severity, "error");
});

test("a compiled file: definition, image and warnings", async () => {
  const config = new TextEncoder().encode(
    '{"architecture":"arm64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}',
  );
  const { definition, image, diagnostics } = await compileDockerfile("FROM alpine\nRUN echo $A\nCMD a b\n", {
    platform: { os: "linux", architecture: "arm64" },
    resolveImage: async (ref) => ({ digest: sha256(ref), config }),
    labels: { a: "b" },
  });
  assert.equal(definition!.def.length, 3);
  assert.match(image!, /"Cmd":\["\/bin\/sh","-c","a b"\].*"Labels":\{"a":"b"\}/);
  assert.deepEqual(
    diagnostics.map(({ rule }) => rule?.name),
    ["JSONArgsRecommended"],
  );
});

test("errors of a build are diagnostics", async () => {
  const { definition, diagnostics } = await compileDockerfile("FROM alpine AS a\nCOPY --from=a / /\n");
  assert.equal(definition, undefined);
  assert.match(diagnostics[0]!.message, /^circular dependency detected on stage: a/);
  assert.equal(diagnostics[0]!.ranges[0]!.start.line, 2);
});

test("a check without a daemon: all stages, by line, nothing about what only base images know", async () => {
  const text = `FROM alpine AS a
WORKDIR rel
COPY $JAVA_HOME /x
FROM alpine
ARG NAME=x
COPY $NAEM secret.txt /
ENV A b
`;
  const found = await checkDockerfile(text, { ignore: ["secret.txt"] });
  assert.deepEqual(
    found.map(({ rule, ranges }) => [rule?.name, ranges[0]?.start.line]),
    [
      ["WorkdirRelativePath", 2],
      ["UndefinedVar", 6],
      ["CopyIgnoredFile", 6],
      ["LegacyKeyValueFormat", 7],
    ],
  );
  const broken = await checkDockerfile("FROM alpine as a\nRUNN x\nCOPY\n");
  assert.deepEqual(
    broken.map(({ severity, ranges }) => [severity, ranges[0]?.start.line]),
    [
      ["warning", 1],
      ["error", 2],
      ["error", 3],
    ],
  );
  assert.deepEqual(
    (await checkDockerfile(text, { check: "skip=all" })).map(({ rule }) => rule?.name),
    [],
  );
  assert.match((await checkDockerfile("# check=x\nFROM a\n"))[0]!.message, /^failed to parse check options/);
});
