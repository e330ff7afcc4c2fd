import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const NOBODY = 65534;

describe("rootless", () => {
  it("runs containers in a user namespace with a single user", () => {
    const dir = mkdtempSync(join(tmpdir(), "kiln-rootless-"));
    chmodSync(dir, 0o777);
    const script = fileURLToPath(new URL("./testing/rootless-run.ts", import.meta.url));
    const args = ["--user", "--map-root-user", "--mount", process.execPath, script, dir];
    const { stdout, stderr } = spawnSync("unshare", args, {
      uid: NOBODY,
      gid: NOBODY,
      encoding: "utf8",
      cwd: "/",
    });
    rmSync(dir, { recursive: true, force: true });
    assert.match(stdout, /^uid=0\(root\) gid=0\(root\).*\ncode 3\n$/, stderr);
  });
});
