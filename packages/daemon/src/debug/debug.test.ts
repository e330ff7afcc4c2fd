import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { BuildHistoryRecordSchema } from "@kiln/api/control";
import { StatusSchema } from "@kiln/api/rpcstatus";
import { BuildMetrics } from "./build-metrics.ts";
import { serveDebug } from "./debug-server.ts";

function record(error?: number) {
  return create(BuildHistoryRecordSchema, {
    CreatedAt: timestampFromMs(1000),
    CompletedAt: timestampFromMs(2500),
    numCompletedSteps: 3,
    numCachedSteps: 1,
    numTotalSteps: 4,
    ...(error === undefined ? {} : { error: create(StatusSchema, { code: error }) }),
  });
}

test("finished builds are counted under buildkitd's names", () => {
  const metrics = new BuildMetrics();
  metrics.add(record());
  metrics.add(record());
  metrics.add(record(5));
  const lines = metrics.text().split("\n");
  for (const line of [
    'buildkit_builds_total{status="success"} 2',
    'buildkit_builds_total{error_code="NotFound",status="failure"} 1',
    'buildkit_builds_steps_total{kind="completed"} 9',
    'buildkit_builds_steps_total{kind="warnings"} 0',
    'buildkit_build_duration_seconds_sum{status="success"} 3',
    'buildkit_build_duration_seconds_bucket{status="success",le="+Inf"} 2',
  ])
    assert.ok(lines.includes(line), line);
});

test("a debugging address without a host is this machine's; what isn't there is named", async () => {
  const state = () => ({ builds: ["b1"] });
  await using debug = await serveDebug(":0", { metrics: new BuildMetrics(), state });
  assert.match(debug.address, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  const get = async (path: string, method = "GET") => {
    const response = await fetch(debug.address.replace("tcp:", "http:") + path, { method });
    return [response.status, await response.text()] as const;
  };
  assert.deepEqual(JSON.parse((await get("/debug/state"))[1]), { builds: ["b1"] });
  assert.match((await get("/metrics"))[1], /^process_resident_memory_bytes \d+$/m);
  assert.ok(JSON.parse((await get("/debug/vars"))[1]).memstats.rss > 0);
  assert.deepEqual([(await get("/debug/pprof/heap"))[0], (await get("/debug/gc"))[0]], [501, 501]);
  assert.match((await get("/debug/pprof/"))[1], /not supported by kilnd: profiles of Go's runtime/);
  assert.equal((await get("/x"))[0], 404);
  assert.equal((await get("/debug/state", "POST"))[0], 404);
  await assert.rejects(serveDebug("nowhere", { metrics: new BuildMetrics(), state }), /invalid address/);
});
