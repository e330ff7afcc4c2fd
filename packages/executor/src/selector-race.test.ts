import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { Worker } from "node:worker_threads";
import { createOciExecutor } from "./oci-executor.ts";
import { makeBusyboxRoot } from "./testing/busybox-root.ts";
import { bindRoot, runIn } from "./testing/executor-suite.ts";
import { startZygote } from "./zygote.ts";

const RUNS = 40;

/** Swaps a directory with a link to the outside as fast as it can. */
const SWAPPER = `
  const { renameSync } = require("node:fs");
  const { workerData: dir } = require("node:worker_threads");
  const move = (from, to) => renameSync(dir + "/" + from, dir + "/" + to);
  for (;;) { move("sub", "dir"); move("link", "sub"); move("sub", "link"); move("dir", "sub"); }
`;

it("resolves a selector inside its tree also while another step swaps a part of it with a link", async () => {
  const base = mkdtempSync(join(tmpdir(), "kiln-race-"));
  const zygote = startZygote();
  const shared = join(base, "shared");
  const outside = join(base, "outside");
  for (const dir of [shared, join(shared, "sub"), outside]) mkdirSync(dir);
  for (const dir of [join(shared, "sub"), outside]) mkdirSync(join(dir, "deep"));
  writeFileSync(join(shared, "sub/deep/file"), "inside");
  writeFileSync(join(outside, "deep/file"), "outside");
  symlinkSync(outside, join(shared, "link"));
  const swapper = new Worker(SWAPPER, { eval: true, workerData: shared });
  try {
    const executor = await createOciExecutor({ root: join(base, "state"), zygote });
    const root = makeBusyboxRoot(mkdtempSync(join(base, "root-")));
    const seen = new Map<string, number>();
    for (let run = 0; run < RUNS; run++) {
      const selector = run % 2 === 0 ? "sub" : "sub/deep";
      const mount = {
        kind: "snapshot",
        dest: "/m",
        readonly: false,
        mounts: bindRoot(shared),
        selector,
      } as const;
      const said = await runIn(executor, root, "cat /m/file /m/deep/file 2>/dev/null || true", {
        mounts: [mount],
      }).then(
        ({ stdout }) => stdout,
        () => "refused",
      );
      seen.set(said, (seen.get(said) ?? 0) + 1);
    }
    assert.ok(!seen.has("outside"), JSON.stringify([...seen]));
    assert.ok(seen.has("inside"), JSON.stringify([...seen]));
  } finally {
    await swapper.terminate();
    await zygote[Symbol.asyncDispose]();
    rmSync(base, { recursive: true });
  }
});
