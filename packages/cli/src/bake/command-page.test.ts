import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { parseFlags } from "../command/flags.ts";
import { bakeCommand } from "./bake-command.ts";
import { commandPage } from "./command-page.ts";
import { questionFlags, questionOf } from "./questions.ts";

const PAGE = new URL("../../../../docs/reference/bake-command.md", import.meta.url);

test("the command's reference page is up to date", () => {
  const text = commandPage(bakeCommand);
  if (process.env.KILN_UPDATE_DOCS === "1") writeFileSync(PAGE, text);
  assert.equal(readFileSync(PAGE, "utf8"), text, "run this test with KILN_UPDATE_DOCS=1");
});

function ask(...argv: readonly string[]): unknown {
  return questionOf(parseFlags(argv, bakeCommand.flags).flags);
}

test("questions are told from builds", () => {
  assert.deepEqual(ask(), { kind: "build" });
  assert.deepEqual(ask("--print"), { kind: "print" });
  assert.deepEqual(ask("--list-variables"), { kind: "list", request: "variables" });
  assert.deepEqual(ask("--eject", "ts"), { kind: "eject", format: "ts" });
  assert.deepEqual(ask("--keys", "app"), { kind: "keys", format: "table" });
  assert.deepEqual(ask("--keys=json"), { kind: "keys", format: "json" });
  const since = { kind: "changes", revision: "-x", format: "table" };
  assert.deepEqual(ask("--changed-since", "-x"), since);
  assert.deepEqual(ask("--changed-since=-x", "--keys"), since);
  assert.deepEqual(ask("--changed-since", "a", "--keys=json"), {
    kind: "changes",
    revision: "a",
    format: "json",
  });
});

test("wrong questions are refused", () => {
  assert.throws(() => ask("--eject", "yaml"), /invalid eject format "yaml", expected hcl, json, ts/);
  assert.throws(() => ask("--eject="), /invalid eject format ""/);
  assert.throws(() => ask("--keys=xml"), /invalid keys format "xml"/);
  assert.throws(() => ask("--changed-since", "a", "--keys=xml"), /invalid keys format "xml"/);
  const flags = questionFlags.filter(({ name }) => name !== "changed-since" && name !== "keys");
  for (const [i, { name }] of flags.entries()) {
    for (const other of flags.slice(i + 1)) {
      const argv = [name, other.name].map((flag) =>
        flag === "list" ? "--list=targets" : flag === "eject" ? "--eject=hcl" : `--${flag}`,
      );
      assert.throws(() => ask(...argv), new RegExp(`--${name} and --${other.name} are mutually exclusive`));
    }
  }
});
