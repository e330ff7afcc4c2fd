import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { BuildRequest } from "@kiln/bake";
import { BuildError } from "@kiln/base";
import { FlagValues } from "../command/flags.ts";
import { buildFlags } from "./build-flags.ts";
import { callOutput } from "./call-result.ts";
import { gitAttributes } from "./git-info.ts";
import { withMissingFileHint } from "./hints.ts";
import { type BuildInputs, parseLayout, prepareInputs } from "./inputs.ts";
import { decodeResponse, imageId } from "./metadata.ts";
import { prepareOutputs } from "./outputs.ts";
import {
  attestShorthand,
  parseAnnotations,
  parseAttests,
  parseCaches,
  parseCall,
  parseContexts,
  parseEntitlements,
  parseExtraHost,
  parseKeyValues,
  parseOutput,
  parseResources,
  parseSecret,
  parseSsh,
} from "./parse-options.ts";
import { hasQuery, isGitSshUrl, isRemoteUrl } from "./remote-url.ts";
import { requestFromFlags } from "./request-from-flags.ts";
import { prepareSecrets } from "./secrets.ts";
import { finishOutputs, solveAttrs } from "./solve-attrs.ts";
import { isArchive, StdinSource } from "./stdin-source.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-cli-test-"));
after(() => rmSync(root, { recursive: true, force: true }));

function request(
  flags: Record<string, string | string[]> = {},
  env: Record<string, string> = {},
): BuildRequest {
  const values = new FlagValues(buildFlags);
  for (const [name, value] of Object.entries(flags))
    for (const item of [value].flat()) values.add(name, item);
  return requestFromFlags(values, ".", env).request;
}

const pairs = (attrs: ReadonlyMap<string, string>): Record<string, string> => Object.fromEntries(attrs);

test("outputs: paths, -, CSV", () => {
  assert.deepEqual(parseOutput("out"), { type: "local", dest: "out", attrs: new Map() });
  assert.deepEqual(parseOutput("-"), { type: "tar", dest: "-", attrs: new Map() });
  const image = parseOutput('type=image,"name=a,b",Push=true');
  assert.equal(image.type, "image");
  assert.deepEqual(pairs(image.attrs), { name: "a,b", push: "true" });
  assert.throws(() => parseOutput("dest=x,foo=y"), /type is required for output/);
});

test("secrets, ssh, caches, attestations, call", () => {
  assert.deepEqual(parseSecret("id=a,src=b"), { id: "a", src: "b" });
  assert.deepEqual(parseSecret("type=env,id=a,src=B"), { id: "a", env: "B" });
  assert.throws(() => parseSecret("id=a,foo=b"), /unexpected key 'foo' in 'foo=b'/);
  assert.deepEqual(parseSsh("default"), { id: "default", paths: [] });
  assert.deepEqual(parseSsh("a=x,y"), { id: "a", paths: ["x", "y"] });
  assert.deepEqual(
    parseCaches("a/b,c/d").map(({ attrs }) => attrs.get("ref")),
    ["a/b", "c/d"],
  );
  assert.throws(() => parseCaches("ref=x"), /type required for "ref=x"/);
  assert.equal(attestShorthand("provenance", "false"), "type=provenance,disabled=true");
  assert.deepEqual(parseAttests(["type=sbom", "type=sbom,disabled=true"]), [
    { type: "sbom", disabled: true, attrs: new Map() },
  ]);
  assert.deepEqual(parseCall("check,format=json"), { name: "lint", ignoreStatus: false, format: "json" });
  assert.equal(parseCall("build"), undefined);
});

test("entitlements, contexts, annotations, hosts, resources, key values", () => {
  assert.deepEqual(parseEntitlements(["network.host", "device=a", "buildx.local.delete"]), {
    entitlements: ["network.host", "device=a"],
    allowsLocalDelete: true,
  });
  assert.throws(() => parseEntitlements(["foo"]), /unknown entitlement foo/);
  assert.deepEqual(
    [...parseContexts(["docker.io/library/alpine:latest=x", "b=y"])],
    [
      ["alpine", "x"],
      ["b", "y"],
    ],
  );
  assert.deepEqual(parseAnnotations(["index,manifest[linux/amd64]:a=b"]), [
    { type: "index", key: "a", value: "b" },
    { type: "manifest", platform: "linux/amd64", key: "a", value: "b" },
  ]);
  assert.equal(parseExtraHost("a:::1"), "a=::1");
  assert.deepEqual(parseResources(["memory=1g", "memory-swap=-1", "cpu-shares=5"]), {
    memoryBytes: 1 << 30,
    memorySwapBytes: -1,
    cpuShares: 5,
  });
  assert.deepEqual(
    [...parseKeyValues(["A", "B", "C=x"], { A: "1" })],
    [
      ["A", "1"],
      ["C", "x"],
    ],
  );
  assert.throws(() => parseKeyValues(["=x"]), /empty key/);
});

test("remote contexts", () => {
  for (const url of ["https://x/a.tar", "git://x", "git@h:o/r.git", "ssh://h/r", "github.com/o/r"]) {
    assert.ok(isRemoteUrl(url), url);
  }
  for (const path of [".", "./github.com/x", "/a@b:c", "a/b"]) assert.ok(!isRemoteUrl(path), path);
  assert.ok(isGitSshUrl("git@h:o/r.git") && !isGitSshUrl("https://u@h/x.git"));
  assert.ok(hasQuery("https://h/r.git?ref=x#y") && !hasQuery("https://h/r.git#a?b"));
});

test("frontend attributes of a request", () => {
  const { attrs, entitlements } = solveAttrs(
    request({
      "build-arg": ["A=1", "http_proxy=mine"],
      label: "l=v",
      network: "host",
      "add-host": ["a:1.2.3.4", "b=[::1]"],
      platform: "linux/amd64,linux/arm64",
      ulimit: "nofile=1:2",
      "shm-size": "64m",
      pull: "true",
      attest: "type=sbom,generator=x",
    }),
    {
      caps: new Set(["exporter.image.attestations"]),
      proxyArgs: new Map([
        ["HTTP_PROXY", "cfg"],
        ["NO_PROXY", "n"],
      ]),
    },
    { env: {}, spansNodes: false },
  );
  assert.deepEqual(pairs(attrs), {
    "attest:provenance": "mode=min,inline-only=true",
    "attest:sbom": "type=sbom,generator=x",
    "build-arg:A": "1",
    "build-arg:http_proxy": "mine",
    "label:l": "v",
    "image-resolve-mode": "pull",
    "build-arg:NO_PROXY": "n",
    platform: "linux/amd64,linux/arm64",
    "force-network-mode": "host",
    "add-hosts": "a=1.2.3.4,b=::1",
    "shm-size": "67108864",
    ulimit: "nofile=1:2",
  });
  assert.deepEqual(entitlements, ["network.host"]);
  assert.throws(
    () =>
      solveAttrs(
        request({ network: "foo" }),
        { caps: new Set(), proxyArgs: new Map() },
        { env: {}, spansNodes: false },
      ),
    /network mode "foo" not supported/,
  );
});

const rules = { push: false, load: false, allowsLocalDelete: false, stdoutIsTerminal: true, cwd: root };

test("outputs: shorthands, refusals, names", () => {
  const caps = { caps: new Set(["exporter.multiple"]), env: {} };
  const push = request({ tag: "x" });
  const [image] = finishOutputs(prepareOutputs(push, { ...rules, push: true }), push, caps);
  assert.deepEqual(pairs(image?.attrs ?? new Map()), { push: "true", unpack: "false", name: "x" });
  const nameless = request({ output: "type=registry" });
  assert.throws(
    () => finishOutputs(prepareOutputs(nameless, rules), nameless, caps),
    /tag is needed when pushing/,
  );
  assert.throws(() => prepareOutputs(request({ output: "type=tar" }), rules), /refusing to write to console/);
  const twice = request({ output: ["type=tar", "type=oci"] });
  assert.throws(
    () => prepareOutputs(twice, { ...rules, stdoutIsTerminal: false }),
    /multiple outputs configured/,
  );
  assert.throws(() => prepareOutputs(request({ output: "type=local" }), rules), /dest is required for local/);
  assert.deepEqual(
    finishOutputs(prepareOutputs(request({ output: "type=cacheonly" }), rules), push, caps),
    [],
  );
});

test("mode=delete only below the working directory, links resolved", () => {
  mkdirSync(join(root, "in"));
  symlinkSync("/tmp", join(root, "out"));
  const at = (dest: string) => request({ output: `type=local,mode=delete,dest=${dest}` });
  assert.equal(prepareOutputs(at(join(root, "in/new")), rules).length, 1);
  for (const dest of [root, "/", join(root, "out/x"), join(root, "..")]) {
    assert.throws(() => prepareOutputs(at(dest), rules), /requires --allow=buildx.local.delete/, dest);
  }
  assert.equal(prepareOutputs(at("/tmp"), { ...rules, allowsLocalDelete: true }).length, 1);
});

async function inputsOf(
  flags: Record<string, string | string[]>,
  context: string,
  stdin = "",
): Promise<BuildInputs> {
  const source = new StdinSource(
    (async function* () {
      yield Buffer.from(stdin);
    })(),
  );
  return prepareInputs(
    { ...request(flags), context },
    { stdin: source, fetchDockerfile: () => Promise.resolve(new Uint8Array()) },
  );
}

test("inputs: directories, remote contexts, standard input, layouts", async () => {
  const dir = join(root, "ctx");
  mkdirSync(dir);
  writeFileSync(join(dir, "dockerfile"), "");
  const local = await inputsOf({}, dir);
  assert.deepEqual([local.attrs.get("filename"), local.sharedKey], ["dockerfile", "ctx"]);
  assert.deepEqual(
    [...local.dirs],
    [
      ["context", dir],
      ["dockerfile", dir],
    ],
  );
  const remote = await inputsOf({ file: "a/Dockerfile" }, "https://h/r.git?ref=x");
  assert.deepEqual(pairs(remote.attrs), {
    context: "https://h/r.git?ref=x",
    filename: "a/Dockerfile",
    "frontend.caps": "moby.buildkit.frontend.gitquerystring",
  });
  const stdin = await inputsOf({}, "-", "FROM scratch\n");
  assert.equal(stdin.attrs.get("dockerfilekey"), "dockerfile");
  assert.equal(stdin.dockerfileLabel, "stdin");
  assert.deepEqual([...stdin.dirs], [], "nothing lies in the file system");
  assert.equal(
    Buffer.from(stdin.madeDirs.get("dockerfile")!.get("Dockerfile")!).toString(),
    "FROM scratch\n",
  );
  await assert.rejects(inputsOf({ file: "x" }, "-", "FROM scratch"), /ambiguous Dockerfile source/);
  await assert.rejects(inputsOf({ file: "-" }, "-", "x"), /can't use stdin for both/);
  await assert.rejects(inputsOf({}, join(root, "nope")), /path ".*nope" not found/);
  const named = await inputsOf({ "build-context": [`context=${dir}`, "img=docker-image://x"] }, dir);
  assert.equal(named.attrs.get("context:context"), "local:_context");
  assert.equal(named.attrs.get("context:img"), "docker-image://x");
  await assert.rejects(inputsOf({ "build-context": `a=${join(dir, "dockerfile")}` }, dir), /not a directory/);
  assert.deepEqual(parseLayout("oci-layout:///a/b:v1"), { path: "/a/b", tag: "v1", digest: "" });
  assert.throws(() => parseLayout("oci-layout://a@sha256:x"), /invalid oci-layout reference/);
});

test("archives are told from Dockerfiles", () => {
  assert.ok(isArchive(Buffer.from([0x1f, 0x8b, 0x08])));
  assert.ok(!isArchive(Buffer.from("FROM scratch\n".repeat(50))));
  const header = Buffer.alloc(512);
  header.write("name", 0);
  header.write("        ", 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  assert.ok(isArchive(header));
});

test("secrets: environment before file, limits, late failures", async () => {
  const file = join(root, "secret");
  writeFileSync(file, "v");
  const sources = prepareSecrets([{ id: "E" }, { id: "f", src: file }, { id: "m", env: "UNSET" }], {
    E: "x",
  });
  const text = async (id: string): Promise<string> => new TextDecoder().decode(await sources.get(id)?.());
  assert.deepEqual([await text("E"), await text("f")], ["x", "v"]);
  await assert.rejects(text("m"), /could not find environment variable "UNSET"/);
  assert.throws(() => prepareSecrets([{ id: "nope" }], {}), /failed to stat nope/);
  writeFileSync(file, "x".repeat(500 * 1024 + 1));
  assert.throws(() => prepareSecrets([{ id: "f", src: file }], {}), /secret f too big/);
});

test("git: revision, remote without credentials, places", async () => {
  const repo = join(root, "repo");
  mkdirSync(join(repo, ".git/refs/heads"), { recursive: true });
  mkdirSync(join(repo, "sub"));
  writeFileSync(join(repo, ".git/HEAD"), "ref: refs/heads/main\n");
  writeFileSync(join(repo, ".git/packed-refs"), `# pack-refs\n${"a".repeat(40)} refs/heads/main\n`);
  writeFileSync(join(repo, ".git/config"), '[remote "origin"]\n\turl = https://u:p@h/o/r.git\n');
  const attrs = await gitAttributes(join(repo, "sub"), {
    dockerfile: "",
    mounts: new Map([["context", join(repo, "sub")]]),
    env: { BUILDX_GIT_LABELS: "1" },
  });
  assert.deepEqual(pairs(attrs), {
    "label:org.opencontainers.image.revision": "a".repeat(40),
    "vcs:revision": "a".repeat(40),
    "label:org.opencontainers.image.source": "https://h/o/r.git",
    "vcs:source": "https://h/o/r.git",
    "label:com.docker.image.source.entrypoint": "sub/Dockerfile",
    "vcs:localdir:context": "sub",
  });
  writeFileSync(join(repo, ".git/HEAD"), "ref: refs/../../etc/passwd\n");
  assert.equal(
    (await gitAttributes(repo, { dockerfile: "", mounts: new Map(), env: {} })).get("vcs:revision"),
    undefined,
  );
});

test("hints: the rule that hid a file, the nearest name", async () => {
  const dir = join(root, "hint");
  mkdirSync(dir);
  writeFileSync(join(dir, "Dockerfile"), "");
  writeFileSync(join(dir, "main.c"), "");
  writeFileSync(join(dir, "hidden.txt"), "");
  writeFileSync(join(dir, ".dockerignore"), "# x\n*.txt\n");
  const inputs = await inputsOf({}, dir);
  const hint = (path: string): string | undefined => {
    const message = `failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: "/${path}": not found`;
    const error = withMissingFileHint(new BuildError("unknown", message), { inputs, request: request() });
    return (error as BuildError).hint;
  };
  assert.equal(hint("hidden.txt"), "hidden.txt is in the context, but .dockerignore:2 (*.txt) excludes it");
  assert.equal(hint("main.d"), "did you mean main.c?");
  assert.equal(hint("zzzzzz"), undefined);
});

test("results: image id, decoded metadata, checks", () => {
  const encoded = Buffer.from('{"a":1}').toString("base64");
  const response = new Map([
    ["containerimage.digest", "sha256:d"],
    ["containerimage.descriptor", encoded],
    ["plain", "abcd"],
  ]);
  assert.equal(imageId(response), "sha256:d");
  assert.deepEqual([...decodeResponse(response).values()], ["sha256:d", { a: 1 }, "abcd"]);
  const lint = {
    warnings: [
      {
        ruleName: "R",
        url: "u",
        detail: "d",
        location: { ranges: [{ start: { line: 1 }, end: { line: 1 } }] },
      },
    ],
    sources: [{ filename: "x", data: Buffer.from("FROM a\n").toString("base64") }],
  };
  const output = callOutput(
    { name: "lint", ignoreStatus: false },
    new Map([
      ["result.json", JSON.stringify(lint)],
      ["result.statuscode", "1"],
    ]),
    "sub/Dockerfile",
  );
  assert.equal(output.exitCode, 1);
  assert.match(
    output.text,
    /^Check complete, 1 warning has been found!\n\nWARNING: R - u\nd\nsub\/Dockerfile:1\n-+\n {3}1 \| >>> FROM a\n/,
  );
});
