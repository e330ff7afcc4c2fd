import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema, type Op, OpSchema } from "@kiln/api/pb";
import { isBuildError } from "@kiln/base";
import { BlobSource } from "../../sources/image/blob-source.ts";
import { buildConfig, buildSteps, sourceInfo } from "./build-steps.ts";
import { Capture } from "./capture.ts";
import { parseProvenanceOptions } from "./create-provenance.ts";
import { checkProvenanceEnvironment, materialsOf, type Provenance, predicateText } from "./predicate.ts";
import { filterArgs, minimalRequest, type RequestRecord, requestRecord, sameRequest } from "./request.ts";
import { RequestRecords } from "./request-records.ts";
import { SystemUsage, sampleSystem } from "./system-usage.ts";

const DIGEST = `sha256:${"a".repeat(64)}` as const;
const COMMIT = "1".repeat(40);
const amd64 = { os: "linux", architecture: "amd64" };

const args = (record: Readonly<Record<string, string>>) => new Map(Object.entries(record));

describe("captures", () => {
  it("have everything once, and no credentials", () => {
    const capture = new Capture();
    capture.addGit({ url: "https://u:p@ss@h/r.git#main", commit: COMMIT, bundle: undefined });
    capture.addGit({ url: "https://x:y@h/r.git#main", commit: COMMIT, bundle: undefined });
    capture.addGit({ url: "https://h/r.git", commit: COMMIT, bundle: "oci-layout+blob://a@sha256:1" });
    capture.addHttp({ url: "https://user:canary@h/f", digest: DIGEST });
    capture.addSecret({ id: "s", optional: true });
    capture.addSecret({ id: "s", optional: false });
    capture.addSsh({ id: "", optional: true });
    capture.addImage({ ref: "docker.io/library/a:1", platform: amd64, digest: DIGEST, local: false });
    capture.addImage({ ref: "docker.io/library/a:1", platform: { ...amd64 }, digest: DIGEST, local: false });
    capture.addImage({
      ref: `docker.io/library/a:1@${DIGEST}`,
      platform: amd64,
      digest: DIGEST,
      local: false,
    });
    const merged = new Capture();
    merged.merge(capture);
    merged.merge(capture);
    merged.dropCanonicalDoubles();
    merged.sort();
    assert.deepEqual(
      merged.git.map(({ url }) => url),
      ["https://h/r.git", "https://xxxxx:xxxxx@h/r.git#main"],
    );
    assert.deepEqual(merged.http, [{ url: "https://xxxxx:xxxxx@h/f", digest: DIGEST }]);
    assert.deepEqual(merged.secrets, [{ id: "s", optional: false }]);
    assert.deepEqual(merged.ssh, [{ id: "default", optional: true }]);
    assert.equal(merged.images.length, 1);
    assert.doesNotMatch(JSON.stringify(merged), /canary|p@ss|x:y/);
  });

  it("become materials", () => {
    const capture = new Capture();
    capture.addImage({ ref: "docker.io/library/a:1", platform: amd64, digest: DIGEST, local: true });
    capture.addBlob({ ref: `h:5000/b@${DIGEST}`, digest: DIGEST, local: false });
    capture.addGit({
      url: "https://h/r.git#v",
      commit: "2".repeat(64),
      bundle: `docker-image+blob://h/b@${DIGEST}`,
    });
    assert.deepEqual(
      materialsOf(capture).map(({ uri, digest }) => [uri, [...(digest?.keys() ?? [])]]),
      [
        ["pkg:oci/a@1?platform=linux%2Famd64", ["sha256"]],
        [`pkg:docker/h%3A5000/b?digest=${DIGEST}&ref_type=blob`, ["sha256"]],
        ["https://h/r.git#v", ["sha256"]],
        ["pkg:docker/h/b@latest?ref_type=bundle&vcs_url=https:%2F%2Fh%2Fr.git%23v", ["sha256"]],
      ],
    );
  });

  it("refuse a blob that isn't what it was named", () => {
    const source = new BlobSource({} as never).resolve({
      identifier: `docker-image+blob://h/b@${DIGEST}`,
      attrs: new Map(),
      platform: undefined,
    });
    const capture = new Capture();
    source.capture(capture, DIGEST);
    assert.throws(
      () => source.capture(capture, `sha256:${"b".repeat(64)}`),
      (error) => isBuildError(error, "data_loss"),
    );
  });
});

describe("requests", () => {
  it("lose what says where to build, and credentials", () => {
    const kept = filterArgs(
      args({
        platform: "x",
        "attest:provenance": "",
        "cache-imports": "",
        context: "https://u:canary@h/r.git",
        "context:dep": "https://u:canary@h/d",
        "vcs:source": "https://u:canary@h/r",
        "build-arg:HTTPS_PROXY": "http://u:canary@proxy",
        "build-arg:URL": "https://git@h/x",
      }),
    );
    assert.deepEqual(
      [...kept.keys()],
      ["context", "context:dep", "vcs:source", "build-arg:HTTPS_PROXY", "build-arg:URL"],
    );
    assert.doesNotMatch(JSON.stringify([...kept]), /canary/);
    assert.equal(kept.get("build-arg:URL"), "https://git@h/x");
    assert.deepEqual(
      [...filterArgs(args({ contextkey: "ctx", ctx: "https://u:canary@h/r" })).values()],
      ["ctx", "https://xxxxx:xxxxx@h/r"],
    );
  });

  it("name their context by what it was resolved to", () => {
    const capture = new Capture();
    capture.addGit({ url: "https://h/r.git#v1", commit: COMMIT, bundle: undefined });
    capture.addHttp({ url: "https://h/c.tar", digest: DIGEST });
    const source = (context: string) =>
      requestRecord("f", args({ context, filename: "D" }), capture).configSource;
    assert.deepEqual(source("https://h/r.git#v1:a/../b"), {
      uri: "https://h/r.git#v1:b",
      digest: new Map([["sha1", COMMIT]]),
      path: "D",
    });
    assert.equal(source("https://h/c.tar").digest?.get("sha256"), "a".repeat(64));
    assert.equal(source("https://h/r.git?bad=1").digest, undefined);
  });

  it("are told of minimally at every depth", () => {
    const leaf = requestRecord("f", args({ "build-arg:A": "canary", target: "t" }), undefined);
    const root: RequestRecord = { ...leaf, request: { ...leaf.request, inputs: new Map([["i", leaf]]) } };
    const full = {
      ...requestRecord("f", args({ target: "t" }), undefined).request,
      secrets: [{ id: "canary", optional: false }],
      root,
    };
    const { request, incomplete } = minimalRequest(full);
    assert.equal(incomplete, true);
    assert.equal(request.root?.request.inputs.get("i")?.request.args.get("target"), "t");
    assert.equal(request.secrets.length, 0);
    assert.equal(request.root?.request.inputs.get("i")?.request.args.has("build-arg:A"), false);
  });

  it("are found by the definitions that they gave, while they run", () => {
    const records = new RequestRecords();
    const input = definition([source("docker-image://a")]);
    const one = requestRecord("f", args({ target: "a" }), undefined);
    const forget = records.register(input, { ...one, request: { ...one.request, root: one } });
    assert.ok(sameRequest(records.find(input) as RequestRecord, one));
    const forgetOther = records.register(input, requestRecord("f", args({ target: "b" }), undefined));
    assert.equal(records.find(input), undefined);
    forgetOther();
    assert.notEqual(records.find(input), undefined);
    forget();
    assert.equal(records.find(input), undefined);
    assert.equal(records.find(create(DefinitionSchema)), undefined);
  });
});

describe("system usage", () => {
  it("is read from the kernel's files", async () => {
    const files: Record<string, string> = {
      stat: "cpu  612555 5528 195938 741808 5642 0 2663 608 0 0\ncpu0 1 2 3\nctxt 7\nprocesses 8\nprocs_running 9\n",
      meminfo: "MemTotal:       100 kB\nMemFree:        50 kB\n",
      "pressure/cpu":
        "some avg10=1.50 avg60=0.00 avg300=2.25 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    };
    const source = { read: async (name: string) => files[name], now: () => 0 };
    const sample = (await sampleSystem(source)) as Record<string, Record<string, unknown>>;
    assert.equal(sample["cpuStat"]?.["user"], 6125.55);
    assert.deepEqual(sample["procStat"], { contextSwitches: 7, processCreated: 8, processesRunning: 9 });
    assert.deepEqual([sample["memoryStat"]?.["total"], sample["memoryStat"]?.["slab"]], [100, null]);
    assert.deepEqual(sample["cpuPressure"]?.["some"], { avg10: 1.5, avg60: 0, avg300: 2.25, total: 12 });
    assert.equal(sample["ioPressure"], undefined);
    using usage = new SystemUsage(source);
    assert.equal((await usage.samples()).length, 1);
  });
});

type OpInit = Parameters<typeof create<typeof OpSchema>>[1];

function source(identifier: string, attrs: Record<string, string> = {}): NonNullable<OpInit> {
  return { op: { case: "source", value: { identifier, attrs } } };
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** A chain of ops, each on the one before, and the terminal op. */
function definition(ops: readonly NonNullable<OpInit>[]): Definition {
  const def: Uint8Array[] = [];
  for (const op of [...ops, {}]) {
    const last = def.at(-1);
    const inputs = last === undefined ? [] : [{ digest: digestOf(last), index: 0n }];
    def.push(toBinary(OpSchema, create(OpSchema, { ...op, inputs } as OpInit) as Op));
  }
  return create(DefinitionSchema, { def });
}

describe("build steps", () => {
  it("show ops as Go does, without sessions and credentials", () => {
    const made = buildSteps(
      definition([
        source("https://u:canary@h/f", { "git.fullurl": "https://u:canary@h/r", "local.session": "canary" }),
        {
          op: {
            case: "exec",
            value: { meta: { args: ["a"], proxyEnv: { httpProxy: "http://u:canary@p" } }, network: 2 },
          },
        },
        {
          op: {
            case: "file",
            value: {
              actions: [
                { input: 0n, secondaryInput: -1n, output: 0n, action: { case: "rm", value: { path: "/x" } } },
              ],
            },
          },
        },
      ]),
    );
    assert.equal(made.steps.length, 4);
    const text = JSON.stringify(buildConfig(made), (_, value) =>
      typeof value === "bigint" ? Number(value) : value,
    );
    assert.doesNotMatch(text, /canary/);
    assert.match(text, /"step1","op":\{"Op":\{"exec":\{"meta":\{"args":\["a"\],"proxy_env":/);
    assert.match(text, /\{"input":0,"secondaryInput":-1,"output":0,"Action":\{"rm":\{"path":"\/x"\}\}\}/);
    assert.match(text, /"inputs":\["step2:0"\]/);
  });

  it("of malformed definitions are refused", () => {
    const good = definition([source("docker-image://a")]);
    const refused = (def: readonly Uint8Array[], message: RegExp): void =>
      assert.throws(
        () => buildSteps(create(DefinitionSchema, { def: [...def] })),
        (error) => isBuildError(error, "invalid_argument") && message.test(error.message),
      );
    refused(good.def.slice(1), /failed to find input/);
    refused(good.def.slice(0, 1), /invalid last vertex/);
    refused([Buffer.from([0xff])], /failed to parse llb proto op/);
    assert.equal(buildSteps(undefined).steps.length, 0);
    assert.equal(sourceInfo(undefined, buildSteps(undefined)), undefined);
  });

  it("may be very deep", () => {
    const ops = Array.from({ length: 20_000 }, (_, at) => source(`docker-image://a${at}`));
    assert.equal(buildSteps(definition(ops)).steps.length, 20_001);
  });
});

describe("predicates", () => {
  const provenance: Provenance = {
    builderId: "b",
    request: requestRecord("dockerfile.v0", args({ z: "1", a: "<2>", __proto__x: "3" }), undefined),
    compatibilityVersion: 30,
    materials: [{ uri: "u", digest: new Map([["sha256", "1"]]) }],
    builderPlatform: "linux/amd64",
    targetPlatform: "linux/arm64",
    dockerfileVersion: "1.27.0",
    environment: { mine: { b: 1, a: [true] } },
    buildConfig: undefined,
    invocationId: "i",
    startedMs: 1_700_000_000_120,
    finishedMs: 1_700_000_001_000,
    metadata: { vcs: new Map(), source: undefined, layers: undefined, network: undefined },
    hermetic: true,
    requestComplete: true,
    materialsComplete: true,
    reproducible: false,
  };

  it("of version 1 have Go's order of fields", () => {
    assert.equal(
      predicateText(provenance, "v1"),
      '{"buildDefinition":{"buildType":"https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md","resolvedDependencies":[{"uri":"u","digest":{"sha256":"1"}}],"externalParameters":{"configSource":{},"request":{"frontend":"dockerfile.v0","args":{"__proto__x":"3","a":"\\u003c2\\u003e","z":"1"},"compatibilityVersion":30}},"internalParameters":{"builderPlatform":"linux/amd64","dockerfileVersion":"1.27.0","mine":{"a":[true],"b":1},"targetPlatform":"linux/arm64"}},"runDetails":{"builder":{"id":"b"},"metadata":{"invocationId":"i","startedOn":"2023-11-14T22:13:20.12Z","finishedOn":"2023-11-14T22:13:21Z","buildkit_metadata":{},"buildkit_hermetic":true,"buildkit_completeness":{"request":true,"resolvedDependencies":true}}}}',
    );
  });

  it("of version 0.2 have the older names", () => {
    const made = JSON.parse(predicateText(provenance, "v0.2")) as Record<string, Record<string, unknown>>;
    assert.deepEqual(Object.keys(made), ["builder", "buildType", "materials", "invocation", "metadata"]);
    assert.deepEqual(made["invocation"]?.["environment"], {
      dockerfileVersion: "1.27.0",
      mine: { a: [true], b: 1 },
      platform: "linux/amd64",
    });
    assert.equal(made["metadata"]?.["https://mobyproject.org/buildkit@v1#hermetic"], true);
  });

  it("take options as BuildKit does", () => {
    const parse = (record: Record<string, string>) => parseProvenanceOptions(args(record));
    assert.deepEqual([parse({}).mode, parse({}).version, parse({ mode: "full" }).mode], ["max", "v1", "max"]);
    assert.throws(() => parse({ mode: "x" }), { message: 'invalid mode "x"' });
    assert.throws(() => parse({ version: "v3" }), { message: "invalid provenance SLSA version: v3" });
    assert.throws(() => parse({ reproducible: "x" }), { message: /failed to parse reproducible flag "x"/ });
  });

  it("don't let operators claim what the builder fills", () => {
    checkProvenanceEnvironment({ mine: 1 });
    assert.throws(() => checkProvenanceEnvironment({ buildConfig: {} }), { message: /is builtin/ });
  });
});
