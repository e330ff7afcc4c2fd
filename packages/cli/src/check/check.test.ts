import assert from "node:assert/strict";
import {
  chmodSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, test } from "node:test";
import { errorMessage } from "@kiln/base";
import type { Terminal } from "../command/command.ts";
import { parseFlags } from "../command/flags.ts";
import { checkCommand } from "./check-command.ts";
import { lineDiff } from "./line-diff.ts";
import { openToReplace, replaceFile } from "./replace-file.ts";

const folder = mkdtempSync(join(tmpdir(), "kiln-check-test-"));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function check(argv: readonly string[], input = ""): Promise<Run> {
  const written = { out: "", err: "" };
  const sink = (name: "out" | "err") => ({
    write: (chunk: string | Uint8Array) => {
      written[name] += Buffer.from(chunk as Uint8Array).toString("latin1");
    },
  });
  const stdin = new PassThrough();
  stdin.end(input);
  const terminal = { stdin, stdout: sink("out"), stderr: sink("err"), env: { V: "1" }, cwd: () => folder };
  const { args, flags } = parseFlags(argv, checkCommand.flags);
  const signal = new AbortController().signal;
  const code = await checkCommand
    .run({ terminal: terminal as unknown as Terminal, args, flags, signal, program: "kiln", debug: false })
    .catch((error: unknown) => {
      written.err += errorMessage(error);
      return 1;
    });
  return { code: code ?? 0, ...written };
}

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text, "latin1");
  return name;
}

test("findings as build --check has them, by line, with an exit code", async () => {
  file("Dockerfile", "FROM a as b\nENV c d\nCOPY x /\n");
  file(".dockerignore", "x\n");
  const { code, out } = await check([]);
  assert.equal(code, 1);
  assert.match(out, /^Check complete, 3 warnings have been found!\n\nWARNING: FromAsCasing - https:/);
  assert.match(out, /\nDockerfile:2\n-+\n {3}1 \| {5}FROM a as b\n {3}2 \| >>> ENV c d\n/);
  assert.match(out, /CopyIgnoredFile/);
  file("clean", "FROM a\nARG V\nRUN b\n");
  assert.deepEqual(await check(["clean"]), { code: 0, out: "Check complete, no warnings found.\n", err: "" });
  const broken = await check(["-"], "FROM a as b\nRUNN x\nCOPY\n");
  assert.match(broken.out, /^Check complete, 2 errors and 1 warning have been found!\n/);
  assert.match(broken.out, /\nERROR: dockerfile parse error on line 2: unknown instruction: RUNN \(did you/);
  assert.match(broken.out, /stdin:3\n/);
  const rules = await check(["--rules=skip=all", "."]);
  assert.equal(rules.code, 0);
});

test("JSON has findings, errors and fixes by file", async () => {
  const name = file("j", "FROM a as b\nENV c d\n");
  const before = JSON.parse((await check(["--format=json", name])).out);
  assert.deepEqual(
    before.map(({ file: path, warnings }: { file: string; warnings: { ruleName: string }[] }) => [
      path,
      warnings.map(({ ruleName }) => ruleName),
    ]),
    [["j", ["FromAsCasing", "LegacyKeyValueFormat"]]],
  );
  const { code, out } = await check(["--fix", "--format=json", name]);
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(out)[0].fixes[0], {
    ruleName: "FromAsCasing",
    line: 1,
    before: "as",
    after: "AS",
  });
});

test("--fix changes nothing but what it fixes, in one step, and keeps the mode", async () => {
  const text = "\xef\xbb\xbffrom a as b\r\nENV c d\r\n# \xff\r\nRUN <<E\r\nENV x y\r\nE\r\nCMD e f";
  const name = file("fix", text);
  chmodSync(join(folder, name), 0o640);
  const { ino } = statSync(join(folder, name));
  const names = readdirSync(folder);
  const { code, out } = await check(["--fix", name]);
  assert.equal(code, 0);
  assert.match(out, /fix:2: LegacyKeyValueFormat: c d /);
  const fixed = text.replace("from a as", "FROM a AS").replace("ENV c d", "ENV c=d");
  assert.equal(readFileSync(join(folder, name), "latin1"), fixed.replace("CMD e f", 'CMD ["e", "f"]'));
  const stats = statSync(join(folder, name));
  assert.equal(stats.mode & 0o7777, 0o640);
  assert.notEqual(stats.ino, ino);
  assert.deepEqual(readdirSync(folder), names);

  // what needs no fix isn't written
  const again = stats.ino;
  assert.equal((await check(["--fix", name])).code, 0);
  assert.equal(statSync(join(folder, name)).ino, again);
});

test("--fix of the standard input goes to the standard output", async () => {
  const { code, out, err } = await check(["--fix", "-"], "FROM a as b\nWORKDIR x");
  assert.deepEqual([code, out], [1, "FROM a AS b\nWORKDIR x"]);
  assert.match(err, /^-:1: FromAsCasing: as .* AS\nCheck complete, 1 warning has been found!\n/);
});

test("--diff shows what --fix would do, byte for byte, and changes nothing", async () => {
  const text =
    "FROM a as b\r\nRUN 1\r\nRUN 2\r\nRUN 3\r\nRUN 4\r\nRUN 5\r\nRUN 6\r\nRUN 7\r\nRUN 8\r\nENV \xff y";
  const name = file("diff", text);
  const { code, out } = await check(["--diff", name]);
  assert.equal(code, 1);
  assert.equal(readFileSync(join(folder, name), "latin1"), text);
  assert.match(out, /^--- diff\n\+\+\+ diff\n@@ -1,4 \+1,4 @@\n-FROM a as b\r\n\+FROM a AS b\r\n RUN 1\r\n/);
  assert.equal(lineDiff("x", "a\nb", "a\nB").split("\n").at(-2), "\\ No newline at end of file");
  assert.match((await check(["--diff", "--fix", name])).err, /can't be used together/);
});

test("what can't be replaced without a surprise is refused, and nothing is touched", async () => {
  const name = file("target", "FROM a as b\n");
  symlinkSync(name, join(folder, "link"));
  assert.match((await check(["--fix", "link"])).err, /link isn't fixed: it is a symbolic link/);
  assert.equal((await check(["link"])).code, 1);
  linkSync(join(folder, name), join(folder, "second"));
  assert.match((await check(["--fix", name])).err, /it has 2 names/);
  assert.equal(readFileSync(join(folder, name), "utf8"), "FROM a as b\n");
  assert.match((await check(["--fix", "/dev/null"])).err, /no regular file/);
  assert.match((await check(["nowhere"])).err, /failed to read .*nowhere/);
  assert.match((await check(["https://example.com/x.git"])).err, /kiln check reads files of this machine/);

  const changed = openToReplace(join(folder, file("changed", "FROM a as b\n")));
  utimesSync(changed.path, 1, 1);
  assert.throws(() => replaceFile(changed, new Uint8Array([1])), /it has changed meanwhile/);
  assert.equal(readFileSync(changed.path, "utf8"), "FROM a as b\n");
  assert.ok(!readdirSync(folder).some((entry) => entry.startsWith(".changed")));
});
