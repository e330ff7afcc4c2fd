import assert from "node:assert/strict";
import { constants } from "node:os";
import { test } from "node:test";
import { signalNumber } from "./signal-numbers.ts";

test("signals have Linux's numbers, and only the known ones", () => {
  for (const [name, number] of Object.entries(constants.signals)) {
    const short = name.replace(/^SIG/, "");
    if (signalNumber(short) !== undefined) assert.equal(signalNumber(short), number, name);
  }
  assert.equal(signalNumber("KILL"), 9);
  assert.equal(signalNumber("RTMIN+15"), 49);
  assert.equal(signalNumber("RTMAX-14"), 50);
  for (const name of ["SIGKILL", "kill", "9", "", "RTMIN+16", "RTMAX-15", "RTMIN+01", "constructor"]) {
    assert.equal(signalNumber(name), undefined, name);
  }
});
