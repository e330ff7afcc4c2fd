/** What is left of a build besides its result: its trace, how much its steps used, a bundle of it all. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { must } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("traces");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

interface Trace {
  readonly data: readonly {
    readonly spans: readonly {
      readonly operationName: string;
      readonly tags: readonly { readonly key: string }[];
    }[];
  }[];
}

async function kiln(...args: string[]): Promise<string> {
  const { code, stderr, stdout } = await bed.kiln(args);
  assert.equal(code, 0, stderr);
  return stdout;
}

test("a build's trace names its steps and what failed; steps are told to join it", async () => {
  const context = bed.context("steps", {
    Dockerfile: `FROM busybox
RUN test -S /dev/otel-grpc.sock && echo "$TRACEPARENT" | grep -Eq '^00-[0-9a-f]{32}-[0-9a-f]{16}-01$'
RUN false
`,
  });
  const failed = await bed.kiln(["build", "--progress=plain", context]);
  assert.notEqual(failed.code, 0);
  const trace = JSON.parse(await kiln("history", "trace")) as Trace;
  const spans = trace.data[0]?.spans ?? [];
  const failures = spans.filter(({ tags }) => tags.some(({ key }) => key === "error"));
  assert.deepEqual(
    failures.map(({ operationName }) => operationName).sort(),
    ["[3/3] RUN false", "moby.buildkit.v1.Control/Solve"],
    JSON.stringify(spans),
  );
  assert.ok(spans.some(({ operationName }) => operationName.startsWith("[2/3] RUN test -S")));
});

test("records are bundled for other programs", async () => {
  const context = bed.context("bundle", { Dockerfile: "FROM busybox\nRUN sleep 3\n" });
  await bed.build(["--no-cache", context]);
  const bundle = join(bed.folder, "one.dockerbuild");
  await kiln("history", "export", "--finalize", "-o", bundle);
  const index = await must("tar", ["xzOf", bundle, "index.json"]);
  const [manifest] = JSON.parse(index).manifests as { digest: string }[];
  const blob = async (digest: string): Promise<Record<string, never>> =>
    JSON.parse(await must("tar", ["xzOf", bundle, `blobs/${digest.replace(":", "/")}`]));
  const { config, layers } = (await blob(manifest!.digest)) as unknown as {
    config: { mediaType: string; digest: string };
    layers: { mediaType: string; digest: string }[];
  };
  assert.equal(config.mediaType, "application/vnd.buildkit.historyrecord.v0");
  const record = (await blob(config.digest)) as unknown as { localState: { LocalPath: string } };
  assert.equal(record.localState.LocalPath, context);
  assert.deepEqual(
    layers.map(({ mediaType }) => mediaType),
    [
      "application/vnd.buildkit.otlp.json.v0",
      "application/vnd.buildkit.status.v0",
      "application/vnd.in-toto+json",
    ],
  );
  const provenance = JSON.stringify(await blob(layers[2]!.digest));
  assert.match(provenance, /"resourceUsage":\{"samples":\[\{.*"usageNanos":\d+/);
});

test("a cache that never answers delays only what would have to run", async () => {
  const context = bed.context("local", { Dockerfile: "FROM busybox\nRUN echo once > /x\n" });
  await bed.build([context]);
  const silent = createServer(() => undefined);
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  try {
    const address = silent.address() as { port: number };
    const startMs = Date.now();
    const progress = await bed.build([`--cache-from=127.0.0.1:${address.port}/x/cache`, context]);
    assert.match(progress, /importing cache manifest from 127\.0\.0\.1/);
    assert.match(progress, /RUN echo once[^\n]*\n#\d+ CACHED/);
    assert.ok(Date.now() - startMs < 60_000);
  } finally {
    silent.close();
  }
});
