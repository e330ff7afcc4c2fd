import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compileDockerfile, fixDockerfile, lintDockerfile } from "../index.ts";
import { dockerfileText } from "../testing/arbitrary.ts";

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

test("a CMD and an ENTRYPOINT that meet keep their forms", () => {
  for (const left of [
    "FROM a\nCMD b\nENTRYPOINT c\n",
    'FROM a AS base\nENTRYPOINT c\nFROM base\nCMD ["b"]\n',
    'FROM a AS base\nCMD b\nFROM base AS mid\nFROM mid\nENTRYPOINT ["c"]\n',
  ]) {
    assert.equal(fixed(left), left);
  }
  assert.equal(
    fixed("FROM a AS x\nENTRYPOINT c\nFROM a\nCMD b\n"),
    'FROM a AS x\nENTRYPOINT ["c"]\nFROM a\nCMD ["b"]\n',
  );
});

test("rules that the file skips stay unfixed", () => {
  const text = "# check=skip=FromAsCasing\nFROM a as b\nENV c d\n";
  assert.equal(fixed(text), "# check=skip=FromAsCasing\nFROM a as b\nENV c=d\n");
  assert.equal(fixed(text.replace("FromAsCasing", "all")), text.replace("FromAsCasing", "all"));
  assert.deepEqual(fixDockerfile(text.replace("skip=", "skop=")).fixes, []);
});

test("every other byte stays: a BOM, line ends, here-documents, what isn't UTF-8, no end of line at the end", () => {
  const latin = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
  const before =
    "\xef\xbb\xbfFROM a as b\r\n\r\n# \xe9\xff\r\nRUN <<E\r\nENV x y \xfe\r\nE\r\nenv A b\tc\r\nRUN x \\\r\n\r\n  y";
  const after = before.replace("as b", "AS b").replace("env A b\tc", 'ENV A="b\tc"');
  assert.deepEqual(Buffer.from(fixDockerfile(latin(before)).bytes), Buffer.from(latin(after)));
});

test("fixing twice is fixing once, and what is built stays the same", async () => {
  await fc.assert(
    fc.asyncProperty(dockerfileText, async (text) => {
      const once = fixDockerfile(text);
      assert.equal(fixDockerfile(once.text).text, once.text);
      const rules = [
        "ConsistentInstructionCasing",
        "FromAsCasing",
        "StageNameCasing",
        "LegacyKeyValueFormat",
      ];
      const meaning = await compileDockerfile(fixDockerfile(text, { rules }).text);
      const original = await compileDockerfile(text);
      assert.deepEqual(meaning.definition?.def, original.definition?.def);
      assert.deepEqual(configOf(meaning.image), configOf(original.image));
    }),
    { numRuns: 300 },
  );
});

function configOf(image: string | undefined): unknown {
  return image === undefined ? undefined : (JSON.parse(image) as { config?: unknown }).config;
}

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
