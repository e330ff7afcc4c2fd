import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import type { BuildkitClient } from "@kiln/client";
import { formatPlatform, parsePlatform } from "@kiln/oci";
import {
  BuilderNode,
  BuilderRegistry,
  BuilderStore,
  ConfigDir,
  embeddedPaths,
  leaveNode,
  type NodeDriver,
  type NodeGroup,
  proxyArgs,
  RegistryLogins,
  readDockerConfigIn,
  resolveNodes,
  type StoredNode,
  updateNode,
} from "./index.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-driver-test-"));
after(() => rmSync(root, { recursive: true, force: true }));
let dir = "";
let count = 0;
beforeEach(() => {
  dir = join(root, String(count++));
  mkdirSync(dir);
});

const change = {
  name: "",
  endpoint: "tcp://a:1",
  endpointGiven: true,
  append: false,
  platforms: [],
  flags: null,
  driverOpts: null,
  files: null,
};
const empty: NodeGroup = { name: "b1", driver: "remote", nodes: [], dynamic: false };

test("a builder's file is Buildx's, byte for byte", async () => {
  const store = new BuilderStore(new ConfigDir(dir));
  const { group } = updateNode(empty, {
    ...change,
    platforms: [parsePlatform("linux/amd64")],
    driverOpts: { network: "host", image: "a&b" },
    flags: ["--x"],
  });
  await store.locked(() => store.save(group));
  assert.equal(
    readFileSync(join(dir, "instances/b1"), "utf8"),
    '{"Name":"b1","Driver":"remote","Nodes":[{"Name":"b10","Endpoint":"tcp://a:1","Platforms":[{"architecture":"amd64","os":"linux"}],' +
      '"DriverOpts":{"image":"a\\u0026b","network":"host"},"Flags":["--x"],"Files":null}],"Dynamic":false}',
  );
  assert.deepEqual(store.find("B1"), {
    ...group,
    nodes: [{ ...group.nodes[0], driverOpts: { image: "a&b", network: "host" } }],
  });
  assert.match(readFileSync(join(dir, "activity/b1"), "utf8"), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  store.remove("b1");
  assert.equal(store.find("b1"), undefined);
});

test("names that are paths are refused", () => {
  const store = new BuilderStore(new ConfigDir(dir));
  for (const name of ["../x", "a/b", "", ".x", "1a"]) assert.throws(() => store.find(name), /invalid name/);
  assert.throws(() => store.localState.read({ builder: "..", node: "n", id: "x" }), /invalid name/);
});

test("the current builder: key, global, default", () => {
  const store = new BuilderStore(new ConfigDir(dir));
  store.save({ ...empty, name: "b1" });
  store.save({ ...empty, name: "b2" });
  assert.equal(store.current("k1"), undefined);
  store.setCurrent({ key: "k1", name: "b1", global: false, asDefault: false });
  assert.equal(readFileSync(join(dir, "current"), "utf8"), '{"Key":"k1","Name":"b1","Global":false}');
  assert.equal(store.current("k1")?.name, "b1");
  assert.equal(store.current("k2"), undefined, "another key has no choice");
  assert.equal(store.current("k1"), undefined, "and reading under it forgets the first");
  store.setCurrent({ key: "k1", name: "b1", global: true, asDefault: false });
  assert.equal(store.current("k2")?.name, "b1");
  store.setCurrent({ key: "k2", name: "b2", global: false, asDefault: true });
  store.setCurrent({ key: "k1", name: "b1", global: false, asDefault: false });
  assert.equal(store.current("k2")?.name, "b2", "the default of a key");
});

test("nodes: names, duplicates, platforms that move", () => {
  const one = updateNode(empty, { ...change, platforms: [parsePlatform("linux/arm64")] }).group;
  const two = updateNode(one, {
    ...change,
    append: true,
    endpoint: "tcp://b:1",
    platforms: [parsePlatform("linux/arm64")],
  });
  assert.deepEqual(
    two.group.nodes.map(({ name, platforms }) => [name, platforms?.map(formatPlatform)]),
    [
      ["b10", []],
      ["b11", ["linux/arm64"]],
    ],
  );
  assert.throws(() => updateNode(one, { ...change, append: true }), /invalid duplicate endpoint tcp:\/\/a:1/);
  assert.throws(
    () => updateNode(one, { ...change, name: "x" }),
    /node x not found, did you mean to append\?/,
  );
  assert.equal(leaveNode(two.group, "b10").nodes.length, 1);
  assert.throws(() => leaveNode(one, "b10"), /can not leave last node/);
});

test("without a builder the embedded one is used; other drivers are refused by name", () => {
  const env = { HOME: dir, BUILDX_CONFIG: join(dir, "bx") };
  const registry = new BuilderRegistry(env, []);
  assert.equal(registry.find().isEmbedded, true);
  assert.equal(registry.find("default").driver, "kiln");
  assert.throws(() => registry.find("nope"), /no builder "nope" found/);
  registry.store.save({
    ...empty,
    name: "dc",
    driver: "docker-container",
    nodes: [{ name: "dc0", endpoint: "x", platforms: null, driverOpts: null, flags: null, files: null }],
  });
  assert.throws(() => registry.find("dc").nodes[0]?.driver, /the driver "docker-container" isn't supported/);
  assert.ok(embeddedPaths({ KILN_HOME: `/${"x".repeat(200)}` }).socket.length < 100);
});

function fakeNode(name: string, explicit: readonly string[], detected: readonly string[]): BuilderNode {
  const stored: StoredNode = {
    name,
    endpoint: name,
    platforms: explicit.map((text) => parsePlatform(text)),
    driverOpts: null,
    flags: null,
    files: null,
  };
  const client = {
    listWorkers: () =>
      Promise.resolve([
        {
          platforms: detected.map((text) => {
            const { os, architecture, variant = "" } = parsePlatform(text);
            return { OS: os, Architecture: architecture, Variant: variant, OSVersion: "", OSFeatures: [] };
          }),
        },
      ]),
  } as unknown as BuildkitClient;
  const driver = { boot: () => Promise.resolve(client) } as unknown as NodeDriver;
  return new BuilderNode("b", stored, () => driver);
}

async function plan(nodes: readonly BuilderNode[], platforms: readonly string[]): Promise<string[]> {
  const resolved = await resolveNodes(
    nodes,
    platforms.map((text) => parsePlatform(text)),
  );
  return resolved.map(({ node, platforms: own }) => `${node.name}: ${own.map(formatPlatform).join(",")}`);
}

test("platforms go to the nodes that build them", async () => {
  const amd = fakeNode("amd", ["linux/amd64"], ["linux/amd64"]);
  const arm = fakeNode("arm", [], ["linux/arm64", "linux/arm/v7"]);
  assert.deepEqual(await plan([amd, arm], []), ["amd: "]);
  assert.deepEqual(await plan([amd, arm], ["linux/amd64"]), ["amd: linux/amd64"]);
  assert.deepEqual(await plan([amd, arm], ["linux/arm64", "linux/amd64", "linux/arm/v7"]), [
    "arm: linux/arm64,linux/arm/v7",
    "amd: linux/amd64",
  ]);
  assert.deepEqual(await plan([amd, arm], ["linux/s390x"]), ["amd: linux/s390x"], "what nobody builds");
});

test("credentials: auths, Hub, helpers, scoped folders, overlay", async () => {
  const auth = (text: string): string => Buffer.from(text).toString("base64");
  const helper = join(dir, "docker-credential-test");
  writeFileSync(
    helper,
    '#!/bin/sh\nread host\necho "{\\"ServerURL\\":\\"$host\\",\\"Username\\":\\"<token>\\",\\"Secret\\":\\"t-$host\\"}"\n',
  );
  chmodSync(helper, 0o755);
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({
      auths: {
        "https://index.docker.io/v1/": { auth: auth("hub:p:w") },
        "https://reg.example/v2/": { auth: auth("u:p") },
        "id.example": { identitytoken: "it" },
      },
      credHelpers: { "helped.example": "test" },
    }),
  );
  const env = { PATH: `${dir}:${process.env.PATH}` };
  const find = (host: string, scopes: string[] = [], more = {}) =>
    new RegistryLogins(readDockerConfigIn(dir), dir, { ...env, ...more }).find(host, scopes);
  assert.deepEqual(await find("registry-1.docker.io"), { username: "hub", password: "p:w" });
  assert.deepEqual(await find("dhi.io"), { username: "hub", password: "p:w" });
  assert.deepEqual(await find("reg.example"), { username: "u", password: "p" });
  assert.deepEqual(await find("id.example"), { identityToken: "it" });
  assert.deepEqual(await find("helped.example"), { identityToken: "t-helped.example" });
  assert.deepEqual(await find("other.example"), {});
  const scoped = join(dir, "config/reg.example/team/app@push");
  mkdirSync(scoped, { recursive: true });
  writeFileSync(
    join(scoped, "config.json"),
    JSON.stringify({ auths: { "reg.example": { auth: auth("pusher:x") } } }),
  );
  assert.deepEqual(await find("reg.example", ["repository:team/app:push"]), {
    username: "pusher",
    password: "x",
  });
  assert.deepEqual(await find("reg.example", ["repository:team/app:pull"]), { username: "u", password: "p" });
  const overlay = JSON.stringify({ auths: { "reg.example": { auth: auth("o:o") } } });
  assert.deepEqual(await find("reg.example", [], { DOCKER_AUTH_CONFIG: overlay }), {
    username: "o",
    password: "o",
  });
});

test("proxies of config.json become build arguments", () => {
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({ proxies: { default: { httpProxy: "http://p" } } }),
  );
  assert.deepEqual(
    [...proxyArgs(readDockerConfigIn(dir), "unix:///x")],
    [
      ["HTTP_PROXY", "http://p"],
      ["http_proxy", "http://p"],
    ],
  );
});
