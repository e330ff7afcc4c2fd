import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "..");
const bin = join(root, "../../node_modules/.bin");

test("committed code is what the .proto files generate", () => {
  const out = mkdtempSync(join(tmpdir(), "kiln-api-"));
  try {
    execFileSync(join(bin, "buf"), ["generate", "--output", out], {
      cwd: root,
      env: {
        ...process.env,
        PATH: `${bin}${delimiter}${process.env.PATH}`,
        BUF_CACHE_DIR: join(out, "cache"),
      },
    });
    const fresh = join(out, "src/gen");
    assert.deepEqual(readdirSync(join(root, "src/gen")), readdirSync(fresh));
    for (const name of readdirSync(fresh)) {
      assert.equal(
        readFileSync(join(root, "src/gen", name), "utf8"),
        readFileSync(join(fresh, name), "utf8"),
        name,
      );
    }
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
});
