import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MachineNotes } from "./machine-notes.ts";

test("a note is found again under its key only", () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-notes-"));
  try {
    const file = join(dir, "machine.json");
    const notes = new MachineNotes(file);
    assert.equal(notes.get("runtime", "a"), undefined);
    notes.set("runtime", "a", { path: "/x" });
    notes.set("other", "b", 1);
    const again = new MachineNotes(file);
    assert.deepEqual(again.get("runtime", "a"), { path: "/x" });
    assert.equal(again.get("runtime", "b"), undefined);
    assert.equal(again.get("other", "b"), 1);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("damaged notes and folders that aren't there only cost the notes", () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-notes-"));
  try {
    const file = join(dir, "machine.json");
    for (const text of ["{", "null", "[1]", '{"a": null, "b": {"key": 3}}']) {
      writeFileSync(file, text);
      const notes = new MachineNotes(file);
      for (const name of ["a", "b", "0", "__proto__"]) assert.equal(notes.get(name, "k"), undefined);
    }
    const nowhere = new MachineNotes(join(dir, "missing", "machine.json"));
    nowhere.set("a", "k", 1);
    assert.equal(nowhere.get("a", "k"), 1);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
