import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  createDisplay,
  formatBytes,
  LogSanitizer,
  type SolveStatus,
  sanitizeName,
  sanitizeText,
  solveStatus,
  sourceExcerpt,
  statusJson,
  type VertexUpdate,
} from "./index.ts";

const S = 1_000_000_000n;

function harness(mode: string, size?: { columns: number; rows: number }, env: Record<string, string> = {}) {
  let text = "";
  let nowMs = 0;
  const display = createDisplay(
    mode,
    { write: (chunk) => (text += chunk), size: () => size },
    {
      clock: { now: () => nowMs },
      description: 'building with "b1" instance using remote driver',
      label: "remote:b1",
      env: (name) => env[name],
    },
  );
  return {
    at(ms: number, status: Partial<SolveStatus>) {
      nowMs = ms;
      display.update(solveStatus(status));
    },
    refresh(ms: number) {
      nowMs = ms;
      display.refresh();
    },
    end(ms: number) {
      nowMs = ms;
      display.done();
      return text;
    },
  };
}

const vertex = (digest: string, name: string, more: Partial<VertexUpdate> = {}): VertexUpdate => ({
  digest,
  name,
  inputs: [],
  cached: false,
  error: "",
  ...more,
});
const log = (digest: string, text: string, at: bigint) => ({
  vertex: digest,
  stream: 1,
  data: new TextEncoder().encode(text),
  timestamp: at,
});

test("plain: numbers, switches, statuses, ends", () => {
  const h = harness("plain");
  h.at(1000, {
    vertexes: [vertex("a", "[1/2] one", { started: S }), vertex("b", "[2/2] two", { started: S })],
    logs: [log("a", "hello\npart", S + S / 2n)],
  });
  h.at(1500, { vertexes: [vertex("b", "[2/2] two", { started: S, completed: S + S / 10n, cached: true })] });
  h.at(2000, {
    vertexes: [vertex("a", "[1/2] one", { started: S, completed: 2n * S, error: "exit code: 1" })],
    logs: [log("a", "ial\n", 2n * S)],
    statuses: [
      {
        id: "transferring x:",
        vertex: "a",
        name: "",
        total: 0n,
        current: 57n,
        timestamp: 2n * S,
        started: S,
        completed: 2n * S,
      },
    ],
  });
  assert.equal(
    h.end(2100),
    `#0 building with "b1" instance using remote driver

#1 [1/2] one
#1 0.500 hello
#1 0.500 part
#1 ...

#2 [2/2] two
#2 CACHED

#1 [1/2] one
#1 transferring x: 57B 1.0s done
#1 0.500 partial
#1 ERROR: exit code: 1
------
 > [1/2] one:
0.500 hello
0.500 partial
------
`,
  );
});

test("plain: members of a progress group are one vertex, weak ones alone stay hidden", () => {
  const h = harness("plain");
  const group = (weak: boolean) => ({ progressGroup: { id: "g", name: "COPY --link", weak } });
  h.at(1000, { vertexes: [vertex("a", "copy", { started: S, completed: 2n * S, ...group(true) })] });
  h.refresh(1200);
  h.at(2000, { vertexes: [vertex("m", "merge", { started: 2n * S, completed: 3n * S, ...group(false) })] });
  assert.match(h.end(3000), /#1 COPY --link\n#1 DONE 2.0s\n$/);
});

test("plain: a canceled vertex leaves no excerpt", () => {
  const h = harness("plain");
  h.at(1000, {
    vertexes: [vertex("a", "x", { started: S, completed: S, error: "failed: context canceled" })],
  });
  assert.match(h.end(1100), /#1 CANCELED\n$/);
});

test("tty: header, rows, colours", () => {
  const h = harness("tty", { columns: 60, rows: 20 });
  h.at(1000, { vertexes: [vertex("a", "[1/1] FROM x", { started: S, completed: 2n * S })] });
  const text = h.end(2000);
  assert.match(text, /\[\+\] Building 1\.0s \(1\/1\) FINISHED {17,} remote:b1\n/);
  assert.match(text, /\x1b\[34m => \[1\/1\] FROM x +1\.0s\n\x1b\[0m/);
});

test("tty: NO_COLOR", () => {
  const h = harness("tty", { columns: 60, rows: 20 }, { NO_COLOR: "1" });
  h.at(1000, { vertexes: [vertex("a", "x", { started: S, completed: 2n * S })] });
  assert.doesNotMatch(h.end(2000), /\x1b\[34m/);
});

test("rawjson: keys, times, escapes", () => {
  const line = statusJson(
    solveStatus({
      vertexes: [vertex("sha256:1", "a<b", { started: 1_500_000_000n })],
      statuses: [{ id: "x", vertex: "sha256:1", name: "", total: 0n, current: 0n, timestamp: S }],
      logs: [log("sha256:1", "hi", S + 1n)],
    }),
  );
  assert.equal(
    line,
    '{"vertexes":[{"digest":"sha256:1","name":"a\\u003cb","started":"1970-01-01T00:00:01.5Z"}],' +
      '"statuses":[{"id":"x","vertex":"sha256:1","current":0,"timestamp":"1970-01-01T00:00:01Z"}],' +
      '"logs":[{"vertex":"sha256:1","stream":1,"data":"aGk=","timestamp":"1970-01-01T00:00:01.000000001Z"}]}',
  );
});

test("unknown modes and tty without a terminal are refused", () => {
  assert.throws(() => harness("fancy"), /invalid progress mode fancy/);
  assert.throws(() => harness("tty"), /failed to get console/);
});

test("sizes", () => {
  assert.equal(formatBytes(999n), "999B");
  assert.equal(formatBytes(1234n), "1.23kB");
  assert.equal(formatBytes(5_000_000_000n), "5.00GB");
});

test("control sequences other than colours are removed", () => {
  const cases: [string, string][] = [
    ["\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"],
    ["a\x1b[2Jb\x1b[10;10Hc", "abc"],
    ["\x1b]52;c;ZXZpbA==\x07x", "x"],
    ["\x1b]0;title\x1b\\x", "x"],
    ["\x1bPdcs\x1b\\x\x1bcy", "xy"],
    ["\x9b2Jx\u0085y", "xy"],
    ["\x1b]8;;unterminated\nnext", "\nnext"],
    ["1%\r2%\r\n", "1%\n2%\n"],
    ["bell\x07 tab\t", "bell tab\t"],
  ];
  for (const [input, expected] of cases) assert.equal(sanitizeText(input), expected, JSON.stringify(input));
  assert.equal(sanitizeName("a\nb\x1b[31mc\x1b]2;x\x07"), "a bc");
});

test("split anywhere, the sanitiser gives the same and never lets an escape through", () => {
  const piece = fc.constantFrom(
    "\x1b",
    "[",
    "]",
    "2",
    "J",
    "m",
    ";",
    "\x07",
    "\r",
    "\n",
    "x",
    "\x9b",
    "\\",
    "P",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const split = new LogSanitizer();
      const out = pieces.map((part) => split.push(part)).join("") + split.end();
      assert.equal(out, sanitizeText(pieces.join("")));
      assert.doesNotMatch(out.replace(/\x1b\[[0-9;:]*m/g, ""), /[\x00-\x08\x0b-\x1f\x7f-\x9f]/);
    }),
  );
});

test("source excerpts", () => {
  const source = {
    filename: "Dockerfile",
    language: "Dockerfile",
    data: new TextEncoder().encode("FROM scratch\nRUN a\nRUN b\nCOPY x y\n"),
  };
  const at = (line: number) => ({ start: { line, character: 0 }, end: { line, character: 5 } });
  assert.equal(
    sourceExcerpt(source, [at(4)]),
    `Dockerfile:4
--------------------
   2 |     RUN a
   3 |     RUN b
   4 | >>> COPY x y
   5 |     
--------------------
`,
  );
  assert.equal(sourceExcerpt(source, [at(9)]), "");
  assert.equal(sourceExcerpt(source, []), "");
});
