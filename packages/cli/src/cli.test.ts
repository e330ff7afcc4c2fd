import assert from "node:assert/strict";
import { test } from "node:test";
import { BuildError } from "@kiln/base";
import { parsePlatform } from "@kiln/oci";
import { solveStatus } from "@kiln/progress";
import { parseJobs } from "./bake/jobs.ts";
import { StatusMerger } from "./bake/prefix-status.ts";
import { chooseProgress } from "./build/build-command.ts";
import { platformTexts, truncatedPlatforms } from "./builders/platform-text.ts";
import { readFilters } from "./cache/filters.ts";
import { ExitCode } from "./command/command.ts";
import { goTime, rfc3339, runFormat } from "./go-records.ts";
import { buildName } from "./history/build-name.ts";
import { durationText } from "./history/query.ts";
import { exitCodeOf, reportError } from "./report-error.ts";
import { alignColumns, BUILDKIT_TABS, DOCKER_TABLE } from "./tab-writer.ts";

test("columns as text/tabwriter makes them", () => {
  assert.equal(alignColumns("ID\tSIZE\nabc\t1\n", DOCKER_TABLE), "ID        SIZE\nabc       1\n");
  assert.equal(alignColumns("a\tb\nlonger-than-8\tc\n", BUILDKIT_TABS), "a\t\tb\nlonger-than-8\tc\n");
  assert.equal(alignColumns("K:\tv\n\nLong key:\tw\n", { minWidth: 0, padding: 1 }), "K: v\n\nLong key: w\n");
});

test("exit codes and the order of an error's parts", async () => {
  assert.equal(exitCodeOf(new BuildError("internal", "x")), 100);
  assert.equal(exitCodeOf(new BuildError("resource_exhausted", "x")), 102);
  assert.equal(exitCodeOf(new BuildError("canceled", "x")), 130);
  assert.equal(exitCodeOf(new Error("x")), 1);
  assert.equal(exitCodeOf(new ExitCode(7)), 7);
  let text = "";
  const code = await reportError(
    new BuildError("unknown", "bad \x1b[2J thing", { hint: "do this" }),
    { write: (chunk) => (text += String(chunk)) },
    false,
  );
  assert.equal(code, 1);
  assert.equal(text, "ERROR: bad [2J thing\nHINT: do this\n");
});

test("--progress and --quiet", () => {
  assert.deepEqual(chooseProgress("none", false), { mode: "quiet", printsId: false });
  assert.deepEqual(chooseProgress("quiet", false), { mode: "quiet", printsId: true });
  assert.deepEqual(chooseProgress("auto", true), { mode: "quiet", printsId: true });
  assert.throws(() => chooseProgress("plain", true), /progress=plain and quiet cannot be used together/);
});

test("filters of du and prune", () => {
  assert.deepEqual(readFilters(["id=x", "until=1h", "type=regular", "inuse"]), {
    keepDurationNs: 3_600_000_000_000n,
    filter: ["id~=x,type==regular,inuse"],
  });
  assert.throws(() => readFilters(["until=1h", "unused-for=1h"]), /conflicting filters/);
  assert.throws(() => readFilters(["until=1h", "until=2h"]), /expects only one value/);
});

test("platforms in tables", () => {
  const parse = (texts: string[]) => texts.map((text) => parsePlatform(text));
  const texts = platformTexts(
    parse(["linux/arm64"]),
    parse(["linux/amd64", "linux/amd64/v2", "linux/arm64"]),
  );
  assert.deepEqual(texts, ["linux/arm64*", "linux/amd64", "linux/amd64/v2"]);
  assert.equal(truncatedPlatforms(texts), "linux/amd64 (+2), linux/arm64*");
});

test("--jobs", () => {
  assert.deepEqual(parseJobs(""), { parallel: 0, mode: "fail-fast" });
  assert.deepEqual(parseJobs("4"), { parallel: 4, mode: "fail-fast" });
  assert.deepEqual(parseJobs("defer-error,parallel=2"), { parallel: 2, mode: "defer-error" });
  assert.throws(() => parseJobs("x"), /invalid jobs value/);
});

test("several targets in one display", () => {
  const seen: string[] = [];
  const merger = new StatusMerger((status) =>
    seen.push(...status.vertexes.map(({ name }) => name), ...status.logs.map(() => "log")),
  );
  const vertex = (name: string) => ({ digest: "d", inputs: [], name, cached: false, error: "" });
  const log = { vertex: "d", stream: 1, data: new Uint8Array(), timestamp: 0n };
  merger.forTarget(
    "a",
    true,
  )(solveStatus({ vertexes: [vertex("[1/2] RUN x"), vertex("exporting")], logs: [log] }));
  merger.forTarget("b", true)(solveStatus({ logs: [log] }));
  assert.deepEqual(seen, ["[a 1/2] RUN x", "[a] exporting", "log"]);
});

test("times and names of records", () => {
  const time = 1_700_000_000_123_000_000n;
  assert.equal(rfc3339(time), "2023-11-14T22:13:20.123Z");
  assert.equal(goTime(time), "2023-11-14 22:13:20.123 +0000 UTC");
  assert.equal(durationText(61_000_000_000n), "1m  1s");
  assert.equal(
    buildName({ target: "t" }, { target: "", localPath: "/a/ctx", dockerfilePath: "" }),
    "ctx (t)",
  );
  assert.equal(
    buildName({}, { target: "", localPath: "/a/ctx", dockerfilePath: "/a/ctx/sub/x.Dockerfile" }),
    "ctx/sub/x.Dockerfile",
  );
  assert.equal(runFormat("json", { fields: { A: 1 }, json: { a: 1n } }), '{"a":1}');
});
