import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  base64FromBytes,
  bytesFromBase64,
  bytesSize,
  csvFields,
  formatCsvFields,
  formatDuration,
  formatG,
  goJson,
  humanDuration,
  humanSize,
  newId,
  newUuid,
  parseDuration,
  parseRamBytes,
  parseUlimit,
  quoteGo,
  shellWords,
  sprintf,
  suggest,
  withSuggestion,
} from "./index.ts";

test("csv fields and their errors", () => {
  assert.deepEqual(csvFields('type=local,"a=b,c",d=""'.replace(',d=""', ",d=")), [
    "type=local",
    "a=b,c",
    "d=",
  ]);
  assert.deepEqual(csvFields('"a""b",c,\n'), ['a"b', "c", ""]);
  assert.deepEqual(csvFields('a"b', { lazyQuotes: true }), ['a"b']);
  assert.throws(() => csvFields(""), { message: "EOF" });
  assert.throws(() => csvFields('é,a"b'), {
    message: 'parse error on line 1, column 5: bare " in non-quoted-field',
  });
  assert.throws(() => csvFields('"a"b'), {
    message: 'parse error on line 1, column 3: extraneous or missing " in quoted-field',
  });
  assert.throws(() => csvFields('"ab'), {
    message: 'parse error on line 1, column 2: extraneous or missing " in quoted-field',
  });
  fc.assert(
    fc.property(fc.array(fc.string(), { minLength: 1 }), (fields) => {
      const line = formatCsvFields(fields);
      if (line !== "" && !/[\r\n]/.test(line)) assert.deepEqual(csvFields(line), fields);
    }),
  );
});

test("sizes", () => {
  const table: [string, number][] = [
    ["32", 32],
    ["32b", 32],
    ["32k", 32 * 1024],
    ["1.5 GiB", 1.5 * 1024 ** 3],
    ["512MB", 512 * 1024 ** 2],
    [".5m", 512 * 1024],
  ];
  for (const [text, bytes] of table) assert.equal(parseRamBytes(text), bytes, text);
  for (const bad of ["", "hello", "-32", "32bb", "32mm", "32 mb ", "1e", "3 2"]) {
    assert.throws(() => parseRamBytes(bad), { code: "invalid_argument" }, bad);
  }
  assert.equal(humanSize(1000), "1kB");
  assert.equal(humanSize(1_234_567), "1.235MB");
  assert.equal(humanSize(999_960, 3), "1e+03kB");
  assert.equal(bytesSize(1024 * 1024 * 1.5), "1.5MiB");
  assert.equal(bytesSize(0), "0B");
  // Go rounds halves to even.
  assert.equal(humanSize(9125, 3), "9.12kB");
  assert.equal(sprintf("%.1f %.0f %.2f", 0.25, 2.5, 1.005), "0.2 2 1.00");
  assert.equal(formatG(0.00001234, 4), "1.234e-05");
  assert.equal(formatG(123456, 3), "1.23e+05");
  assert.equal(formatG(0.05, 3), "0.05");
});

test("durations", () => {
  const table: [string, string][] = [
    ["1h30m", "1h30m0s"],
    ["90s", "1m30s"],
    ["1.5s", "1.5s"],
    ["-250ms", "-250ms"],
    ["1us2ns", "1.002µs"],
    ["0", "0s"],
    ["100h", "100h0m0s"],
    [".5m", "30s"],
  ];
  for (const [text, want] of table) assert.equal(formatDuration(parseDuration(text)), want);
  assert.throws(() => parseDuration("3"), { message: 'time: missing unit in duration "3"' });
  assert.throws(() => parseDuration("3x"), { message: 'time: unknown unit "x" in duration "3x"' });
  assert.throws(() => parseDuration("1µx"), {
    message: 'time: unknown unit "\\xc2\\xb5x" in duration "1\\xc2\\xb5x"',
  });
  assert.throws(() => parseDuration(""), { message: 'time: invalid duration ""' });
  assert.throws(() => parseDuration("9999999h9999999h"), { code: "invalid_argument" });
  assert.equal(humanDuration(61_000), "About a minute");
  assert.equal(humanDuration(3 * 86_400_000), "3 days");
});

test("shell words", () => {
  assert.deepEqual(shellWords(`one 'two "x"' "th\\"ree" fo\\ ur a#b # rest\nfive ''`), [
    "one",
    'two "x"',
    'th"ree',
    "fo ur",
    "a#b",
    "five",
    "",
  ]);
  assert.throws(() => shellWords("'a"), { message: "EOF found when expecting closing quote" });
  assert.throws(() => shellWords("a\\"), { message: "EOF found after escape character" });
});

test("JSON as Go writes it", () => {
  assert.equal(
    goJson({
      b: "<&>\u2028\x01\x7f\b",
      a: undefined,
      m: new Map([
        ["z", 1n],
        ["é", null],
      ]),
      d: new Uint8Array([1, 2]),
    }),
    '{"b":"\\u003c\\u0026\\u003e\\u2028\\u0001\x7f\\b","m":{"z":1,"é":null},"d":"AQI="}',
  );
  assert.equal(
    goJson({ a: [], b: {}, c: [1, { d: 2 }] }, { indent: "  " }),
    JSON.stringify({ a: [], b: {}, c: [1, { d: 2 }] }, null, 2),
  );
  assert.equal(goJson("<a>", { escapeHtml: false }), '"<a>"');
  assert.equal(goJson("\ud800x"), '"\ufffdx"');
  assert.throws(() => goJson(Number.NaN), TypeError);
  fc.assert(
    fc.property(fc.json(), (text) => {
      const value = JSON.parse(text);
      assert.deepEqual(
        JSON.parse(goJson(value)),
        JSON.parse(JSON.stringify(value).replaceAll(/\\u[dD][89a-fA-F]../g, (m) => m)),
      );
    }),
    { numRuns: 200 },
  );
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.equal(base64FromBytes(bytes), Buffer.from(bytes).toString("base64"));
      assert.deepEqual(bytesFromBase64(base64FromBytes(bytes)), new Uint8Array(bytes));
    }),
  );
});

test("quoting, ids, suggestions, ulimits", () => {
  assert.equal(quoteGo('a"\\\n\x01é\u200b😀\u{e0001}'), '"a\\"\\\\\\n\\x01é\\u200b😀\\U000e0001"');
  assert.match(newId(), /^[0-9a-z]{25}$/);
  assert.notEqual(newId(), newId());
  assert.match(newUuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(suggest("FORM", ["FROM", "RUN"], false), "FROM");
  assert.equal(suggest("from", ["FROM"], false), undefined);
  assert.equal(withSuggestion("bad", "tergets", ["targets"], true), "bad (did you mean targets?)");
  assert.deepEqual(parseUlimit("nofile=1024:2048"), { name: "nofile", soft: 1024n, hard: 2048n });
  assert.throws(() => parseUlimit("nofile=2:1"), {
    message: "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
  });
});

test("sprintf", () => {
  const table: [string, unknown[], string][] = [
    ["%-5s|%5d|%05d|%x", ["ab", 42, -42, 255], "ab   |   42|-0042|ff"],
    ["%.2f %t %v %q", [1.005, true, ["a", 1], 'x"'], '1.00 true [a 1] "x\\""'],
    ["%d%%", [5], "5%"],
    ["%d", [], "%!d(MISSING)"],
    ["%d", ["x"], "%!d(string=x)"],
    ["a", [1], "a%!(EXTRA int=1)"],
    ["%*d", [4, 7], "   7"],
    ["%+d %x", [3, "hi"], "+3 6869"],
  ];
  for (const [format, args, want] of table) assert.equal(sprintf(format, ...args), want);
});
