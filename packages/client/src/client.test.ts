import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { errorDetailTypes } from "@kiln/api";
import { Control, type SolveRequest } from "@kiln/api/control";
import { LLBBridge, ResultSchema } from "@kiln/api/gateway";
import { BuildError, createDeferred, isBuildError, sleep } from "@kiln/base";
import { duplexPair, errorFromStatus, Router } from "@kiln/grpc";
import { Channel } from "@kiln/grpc/client";
import {
  BuildkitClient,
  createSession,
  dialTo,
  enabledCaps,
  failureOf,
  OciIndex,
  openFileSink,
  prepareLocalCaches,
  probe,
} from "./index.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-client-test-"));
after(() => rmSync(root, { recursive: true, force: true }));

interface FakeDaemon {
  readonly client: BuildkitClient;
  readonly solves: SolveRequest[];
  readonly gatewayCalls: string[];
}

/** A daemon that holds a gateway build open until its client returns something. */
function fakeDaemon(opts: { gatewayError?: BuildError; silentStatus?: boolean } = {}): FakeDaemon {
  const solves: SolveRequest[] = [];
  const gatewayCalls: string[] = [];
  const returned = createDeferred<BuildError | undefined>();
  const router = new Router();
  router.add(Control, {
    solve: async (request, ctx) => {
      solves.push(request);
      if (request.Frontend === "fail") throw new BuildError("internal", "boom");
      if (request.Frontend === "hang") await sleep(60_000, ctx.signal);
      if (request.Frontend === "") {
        const error = await returned.promise;
        if (error) throw error;
      }
      return { ExporterResponse: { "containerimage.digest": "sha256:1" } };
    },
    async *status() {
      if (opts.silentStatus) return;
      yield { vertexes: [{ digest: "sha256:a", name: "step", started: { seconds: 1n, nanos: 5 } }] };
    },
  });
  router.add(LLBBridge, {
    ping: (_request, ctx) => {
      gatewayCalls.push(`ping ${ctx.metadata.get("buildkit-controlapi-buildid")}`);
      return { LLBCaps: [{ ID: "a", Enabled: true }, { ID: "b" }] };
    },
    solve: (request, ctx) => {
      const id = ctx.metadata.get("buildkit-controlapi-buildid");
      gatewayCalls.push(`solve ${id} ${request.Frontend} ${JSON.stringify(request.FrontendOpt)}`);
      if (opts.gatewayError) throw opts.gatewayError;
      return { result: { result: { case: "ref", value: { id: "r1" } }, metadata: {} } };
    },
    return: (request) => {
      const { error } = request;
      gatewayCalls.push(error ? `error ${error.message}` : `return ${request.result?.result.case}`);
      returned.resolve(error ? errorFromStatus(error) : undefined);
      return {};
    },
  });
  const [near, far] = duplexPair();
  router.accept(far, { transport: "test" });
  return { client: new BuildkitClient(Channel.over(near)), solves, gatewayCalls };
}

test("a client-driven build: empty frontend, solve, return, all under the build's id", async () => {
  const daemon = fakeDaemon();
  await using client = daemon.client;
  const names: string[] = [];
  const result = await client.solve({
    ref: "ref1",
    drive: (gateway) => gateway.solve({ Frontend: "dockerfile.v0", FrontendOpt: { target: "x" } }),
    frontendAttrs: { target: "x" },
    cacheImports: [{ type: "registry", attrs: { ref: "a/b" } }],
    exporters: [{ type: "image", attrs: { name: "n" } }],
    onStatus: (status) => names.push(...status.vertexes.map(({ name }) => name)),
  });
  assert.deepEqual([...result.exporterResponse], [["containerimage.digest", "sha256:1"]]);
  const imports = '[{"Type":"registry","Attrs":{"ref":"a/b"}}]';
  assert.deepEqual(daemon.gatewayCalls, [
    `solve ref1 dockerfile.v0 ${JSON.stringify({ "cache-imports": imports, target: "x" })}`,
    "return ref",
  ]);
  const [request] = daemon.solves;
  assert.equal(request?.Frontend, "");
  assert.equal(request?.FrontendAttrs["cache-imports"], imports);
  assert.equal(request?.ExporterDeprecated, "image");
  assert.deepEqual(names, ["step"]);
});

test("the error of a build is the daemon's, with its details", async () => {
  const source = {
    info: { filename: "Dockerfile", data: "RlJPTSB4Cg==" },
    ranges: [{ start: { line: 1 }, end: { line: 1 } }],
  };
  const wire = [
    { typeUrl: errorDetailTypes.source, value: new TextEncoder().encode(JSON.stringify(source)) },
    { typeUrl: errorDetailTypes.vertex, value: new TextEncoder().encode('{"digest":"sha256:v"}') },
    { typeUrl: errorDetailTypes.exitMessage, value: new TextEncoder().encode('{"Code":7}') },
    { typeUrl: errorDetailTypes.source, value: new TextEncoder().encode("not json") },
  ];
  const failure = failureOf(new BuildError("unknown", "x", { wire }));
  assert.equal(failure.exitCode, 7);
  assert.equal(failure.vertex, "sha256:v");
  assert.equal(failure.sources.at(-1)?.source.filename, "Dockerfile");
  const daemon = fakeDaemon({ gatewayError: new BuildError("not_found", "no such image") });
  await using client = daemon.client;
  await assert.rejects(
    client.solve({ drive: (gateway) => gateway.solve({ Frontend: "f" }) }),
    /^BuildError: failed to solve: NotFound: no such image$/,
  );
  await assert.rejects(client.solve({ frontend: "fail" }), /failed to solve: Internal: boom/);
});

test("cancelling ends a build at once", async () => {
  const daemon = fakeDaemon({ silentStatus: true });
  await using client = daemon.client;
  const controller = new AbortController();
  const started = Date.now();
  const solving = client.solve({ frontend: "hang", signal: controller.signal });
  setTimeout(() => controller.abort(new BuildError("canceled", "context canceled")), 20);
  await assert.rejects(solving, (error) => {
    assert.ok(isBuildError(error, "canceled"));
    assert.equal(error.message, "failed to solve: Canceled: context canceled");
    return true;
  });
  assert.ok(Date.now() - started < 4000);
});

test("a probe asks for capabilities without leaving a record", async () => {
  const daemon = fakeDaemon();
  await using client = daemon.client;
  const caps = await probe(client.channel, async (gateway) => enabledCaps((await gateway.ping()).LLBCaps));
  assert.deepEqual([...caps], ["a"]);
  assert.equal(daemon.solves[0]?.Internal, true);
});

test("a session that was never opened does no harm", async () => {
  const aborted = AbortSignal.abort();
  const daemon = fakeDaemon();
  await using client = daemon.client;
  await createSession([]).run(client.channel, aborted);
  assert.deepEqual(create(ResultSchema).metadata, {});
});

test("addresses: unknown schemes and hostile hosts are refused", () => {
  for (const address of [
    "npipe:////x",
    "kube-pod://x",
    "nothing",
    "ssh://-oProxyCommand=x",
    "ssh://u:p@h",
    "docker-container://-x",
  ]) {
    assert.throws(() => dialTo(address), BuildError, address);
  }
  for (const address of ["unix:///x", "tcp://1.2.3.4:5", "ssh://u@h:22/run/x.sock", "docker-container://b0"])
    dialTo(address);
});

test("an OCI index: names are taken over, the rest stays", () => {
  const index = new OciIndex(join(root, "layout"));
  const entry = (digest: string) => ({ mediaType: "m", digest, size: 1 });
  index.put(entry("sha256:1"), [{ tag: "latest" }]);
  index.put(entry("sha256:2"), [{ image: "docker.io/library/x:latest" }]);
  index.put(entry("sha256:3"), [{ tag: "latest" }]);
  assert.deepEqual(
    index.entries().map(({ digest }) => digest),
    ["sha256:2", "sha256:3"],
  );
  assert.equal(index.find("docker.io/library/x:latest")?.digest, "sha256:2");
  assert.equal(index.find("nope"), undefined);
  assert.match(readFileSync(join(root, "layout/oci-layout"), "utf8"), /1\.0\.0/);
});

test("a file appears when it's complete; an aborted one leaves nothing", async () => {
  const dir = mkdtempSync(join(root, "sink-"));
  const sink = await openFileSink(join(dir, "a/out.tar"));
  await sink.write(new Uint8Array([1, 2]));
  assert.deepEqual(
    readdirSync(join(dir, "a")).filter((name) => !name.includes(".tmp-")),
    [],
  );
  await sink.close();
  assert.deepEqual([...readFileSync(join(dir, "a/out.tar"))], [1, 2]);
  const aborted = await openFileSink(join(dir, "b.tar"));
  await aborted.write(new Uint8Array([1]));
  await aborted.abort(new Error("x"));
  assert.deepEqual(readdirSync(dir), ["a"]);
  const { pid } = spawnSync("true");
  for (const name of [
    `b.tar.tmp-${pid}-0123456789ab`,
    `b.tar.tmp-${process.pid}-0123456789ab`,
    "b.tar.tmp-mine",
  ]) {
    writeFileSync(join(dir, name), "");
  }
  await (await openFileSink(join(dir, "b.tar"))).close();
  const left = ["a", "b.tar", `b.tar.tmp-${process.pid}-0123456789ab`, "b.tar.tmp-mine"];
  assert.deepEqual(readdirSync(dir).sort(), left.sort(), "what a process that was killed left has gone");
});

test("a local cache that isn't there is a warning, not an error", async () => {
  const warnings: string[] = [];
  const caches = await prepareLocalCaches(
    { imports: [{ type: "local", attrs: { src: join(root, "nope") } }], exports: [] },
    (message) => warnings.push(message),
  );
  assert.deepEqual(caches.imports, []);
  assert.match(warnings[0] ?? "", /skipped: no digest found for tag latest/);
  await assert.rejects(
    prepareLocalCaches({ imports: [], exports: [{ type: "local", attrs: {} }] }, () => undefined),
    /requires dest/,
  );
  writeFileSync(join(root, "broken"), "");
});
