import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import type { Command, Terminal } from "./command.ts";
import { type FlagSpec, parseFlags } from "./flags.ts";
import { runProgram } from "./run.ts";

const specs: readonly FlagSpec[] = [
  { name: "file", short: "f", kind: "string", usage: "" },
  { name: "quiet", short: "q", kind: "bool", usage: "" },
  { name: "debug", short: "D", kind: "bool", usage: "" },
  { name: "tag", short: "t", kind: "list", usage: "" },
  { name: "host", kind: "csv", usage: "" },
  { name: "old", kind: "string", aliasOf: "file", usage: "" },
];

test("pflag: every way to write a flag", () => {
  const { args, flags } = parseFlags(
    ["-qD", "a", "-fx", "--tag=1,2", "-t", "3", "-t=4", "--host", 'a,"b,c"', "--", "-q"],
    specs,
  );
  assert.deepEqual(args, ["a", "-q"]);
  assert.equal(flags.bool("quiet") && flags.bool("debug"), true);
  assert.equal(flags.string("file"), "x");
  assert.deepEqual(flags.list("tag"), ["1,2", "3", "4"]);
  assert.deepEqual(flags.list("host"), ["a", "b,c"]);
  assert.equal(parseFlags(["--old=y"], specs).flags.string("file"), "y");
  assert.equal(parseFlags(["-q=false"], specs).flags.bool("quiet"), false);
  assert.deepEqual(parseFlags(["-"], specs).args, ["-"]);
});

test("errors are pflag's", () => {
  const fail = (argv: string[], message: string): void =>
    assert.throws(() => parseFlags(argv, specs), { message });
  fail(["--nope"], "unknown flag: --nope");
  fail(["-qz"], "unknown shorthand flag: 'z' in -z");
  fail(["--file"], "flag needs an argument: --file");
  fail(["-qf"], "flag needs an argument: 'f' in -f");
  fail(["--=x"], "bad flag syntax: --=x");
  fail(
    ["--quiet=maybe"],
    'invalid argument "maybe" for "-q, --quiet" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
  );
});

test("go style: one dash is as good as two", () => {
  const { flags } = parseFlags(["-file", "x", "--tag", "1"], specs, { style: "go" });
  assert.equal(flags.string("file"), "x");
  assert.throws(() => parseFlags(["-nope"], specs, { style: "go" }), /flag provided but not defined: -nope/);
});

async function run(argv: string[]): Promise<{ code: number; out: string }> {
  const stdout = new PassThrough();
  const terminal = {
    stdin: new PassThrough(),
    stdout,
    stderr: stdout,
    env: {},
    cwd: () => "/",
  } as unknown as Terminal;
  const root: Command = {
    name: "p",
    short: "A program",
    subcommands: [
      {
        name: "group",
        short: "Some commands",
        subcommands: [
          {
            name: "sub",
            short: "Does it",
            body: () =>
              Promise.resolve({
                usage: "ARG",
                flags: specs,
                minArgs: 1,
                maxArgs: 1,
                run: (ctx) => {
                  ctx.terminal.stdout.write(
                    `${ctx.args[0]} ${ctx.flags.string("file")} ${ctx.flags.string("builder")}`,
                  );
                  return Promise.resolve(3);
                },
              }),
          },
        ],
      },
    ],
  };
  const globals: FlagSpec[] = [{ name: "builder", kind: "string", usage: "The builder" }];
  const program = { name: "p", root, globals, warn: () => undefined };
  const code = await runProgram(program, argv, { terminal, signal: new AbortController().signal });
  stdout.end();
  return { code, out: (await stdout.toArray()).join("") };
}

test("commands are found behind global flags and groups", async () => {
  assert.deepEqual(await run(["--builder", "b", "group", "sub", "-f", "x", "arg"]), {
    code: 3,
    out: "arg x b",
  });
  assert.match((await run(["group"])).out, /Available Commands:\n {2}sub/);
  assert.match((await run(["group", "sub", "--help"])).out, /Usage:\n {2}p group sub ARG\n/);
  assert.match((await run([])).out, /Global Flags|--builder string/);
  await assert.rejects(run(["nope"]), /unknown command: "nope"/);
  await assert.rejects(run(["group", "sub"]), /'p group sub' requires 1 argument/);
});
