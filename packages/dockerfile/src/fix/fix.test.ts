import assert from "node:assert/strict";
import { test } from "node:test";
import { compileDockerfile, fixDockerfile, lintDockerfile } from "../index.ts";

function fixed(text: string): string {
  return fixDockerfile(text).text;
}

test("casing of keywords, as and stage names", () => {
  assert.equal(
    fixed("# syntax=x\nFROM alpine as Base\r\n  run  echo a \\\n\t b\nCopy --from=Base a b\n"),
    "# syntax=x\nFROM alpine AS base\r\n  RUN  echo a \\\n\t b\nCOPY --from=Base a b\n",
  );
  assert.equal(fixed("arg A\nFROM alpine\n"), "arg A\nFROM alpine\n");
  assert.equal(fixed("from alpine AS x\nrun a\nRUN b\n"), "from alpine as x\nrun a\nrun b\n");
  assert.equal(
    fixed("FROM --platform=linux/amd64 \\\n# c\n  alpine as X"),
    "FROM --platform=linux/amd64 \\\n# c\n  alpine AS x",
  );
});

test("ENV and LABEL of the old form, where both forms mean the same", () => {
  const cases: [string, string][] = [
    ["ENV A b", "ENV A=b"],
    ["ENV  A   b c  ", 'ENV  A="b c"  '],
    ["ENV A $B/c", "ENV A=$B/c"],
    ["LABEL a b c $D", 'LABEL a="b c $D"'],
    ['ENV A "b c"', 'ENV A="b c"'],
    ["ENV A it's", "ENV A it's"],
    ["ENV A b\\ c", "ENV A b\\ c"],
    ["ENV A=b", "ENV A=b"],
  ];
  for (const [before, after] of cases) assert.equal(fixed(`FROM a\n${before}\n`), `FROM a\n${after}\n`);
});

test("commands of plain words become lists", () => {
  assert.equal(
    fixed("FROM a\nCMD node server.js --port=80\n"),
    'FROM a\nCMD ["node", "server.js", "--port=80"]\n',
  );
  assert.equal(fixed("FROM a\nENTRYPOINT ./run\n"), 'FROM a\nENTRYPOINT ["./run"]\n');
  for (const left of [
    "CMD echo $A",
    "CMD a && b",
    "CMD exec a",
    "CMD A=b c",
    'CMD echo "x"',
    'SHELL ["x"]\nCMD a',
    'ENTRYPOINT ["x"]\nCMD a',
  ]) {
    assert.equal(fixed(`FROM a\n${left}\n`), `FROM a\n${left}\n`);
  }
});

test("MAINTAINER becomes a label", () => {
  assert.equal(
    fixed("FROM a\nMAINTAINER Jane <j@x.org>\n"),
    'FROM a\nLABEL org.opencontainers.image.authors="Jane <j@x.org>"\n',
  );
});

test("a file with mistakes, and rules that aren't wanted, stay as they are", () => {
  assert.deepEqual(fixDockerfile("from a\nRUNN x\nENV a b\n").fixes, []);
  const { fixes } = fixDockerfile("from a\nENV a b\nRUN x\n", { rules: ["LegacyKeyValueFormat"] });
  assert.deepEqual(fixes, [{ rule: "LegacyKeyValueFormat", line: 2, before: "a b", after: "a=b" }]);
});

test("what is fixed is found no more, and the image stays the same", async () => {
  const text = "FROM alpine as Base\nenv A b c\nENV D e\ncmd node x.js\nFROM Base\n".replace(
    "FROM Base",
    "FROM base",
  );
  const after = fixed(text);
  const names = lintDockerfile(after).map(({ rule }) => rule?.name);
  assert.deepEqual(names, []);
  const [a, b] = await Promise.all([compileDockerfile(text), compileDockerfile(after)]);
  assert.deepEqual(a.definition?.def, b.definition?.def);
});
