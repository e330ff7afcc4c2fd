import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parseCniConfig } from "./cni.ts";
import { createNetwork, type NetworkOptions } from "./cni-network.ts";
import { NetnsPool } from "./netns-pool.ts";
import { createOciExecutor, type OciExecutor } from "./oci-executor.ts";
import { removeBridgeRules } from "./testing/bridge-rules.ts";
import { makeBusyboxRoot } from "./testing/busybox-root.ts";
import { runIn } from "./testing/executor-suite.ts";
import { startZygote, type Zygote } from "./zygote.ts";

/** Debian's folder of CNI plugins (package containernetworking-plugins). */
const PLUGINS = "/usr/lib/cni";

describe("parseCniConfig", () => {
  it("reads lists and single plugins, and refuses the rest", () => {
    assert.equal(parseCniConfig('{"name":"n","type":"bridge"}', false).plugins.length, 1);
    assert.equal(
      parseCniConfig('{"name":"n","plugins":[{"type":"a"},{"type":"b"}]}', true).plugins.length,
      2,
    );
    for (const bad of [
      "",
      "[]",
      "{}",
      '{"name":"n","plugins":[]}',
      '{"name":"n","plugins":[{"type":"../x"}]}',
    ]) {
      assert.throws(() => parseCniConfig(bad, true), { code: "invalid_argument" }, bad);
    }
  });
});

describe("NetnsPool", () => {
  it("reuses, and removes beyond its size after the grace time", async () => {
    const removed: number[] = [];
    let made = 0;
    const pool = new NetnsPool<number>({
      targetSize: 1,
      graceMs: 20,
      make: async () => ++made,
      remove: async (value) => {
        removed.push(value);
      },
      onError: assert.fail,
    });
    const [a, b] = [await pool.get(), await pool.get()];
    pool.put(a);
    assert.equal(await pool.get(), a);
    pool.put(a);
    pool.put(b);
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.deepEqual(removed, [a]);
    await pool[Symbol.asyncDispose]();
    assert.deepEqual(removed, [a, b]);
    await assert.rejects(pool.get(), { code: "unavailable" });
  });
});

describe("networks of plugins", () => {
  let base: string;
  let zygote: Zygote;
  let rootfs: string;
  const bridgeName = "kilntest0";
  const options = (): NetworkOptions => ({
    mode: "bridge",
    root: base,
    zygote,
    cniConfigPath: join(base, "cni.json"),
    cniBinaryDir: PLUGINS,
    poolSize: 0,
    bridgeName,
    bridgeSubnet: "10.87.0.0/16",
    env: {},
    warn: (text) => assert.fail(text),
  });
  const executor = (network: Awaited<ReturnType<typeof createNetwork>>): Promise<OciExecutor> =>
    createOciExecutor({ root: join(base, "executor"), zygote, network });

  before(() => {
    assert.ok(existsSync(join(PLUGINS, "bridge")), `${PLUGINS}/bridge is missing: install the CNI plugins`);
    base = mkdtempSync(join(tmpdir(), "kiln-cni-"));
    rootfs = makeBusyboxRoot(mkdtempSync(join(base, "root-")));
    zygote = startZygote();
  });
  after(async () => {
    await zygote[Symbol.asyncDispose]();
    removeBridgeRules(bridgeName);
    rmSync(base, { recursive: true });
  });

  it("gives containers a network over a bridge, which goes when it is closed", async () => {
    const network = await createNetwork(options());
    const runner = await executor(network);
    const { stdout, code } = await runIn(
      runner,
      rootfs,
      "ip -4 -o addr show; ip route; ping -c1 -W2 10.87.0.1",
    );
    assert.equal(code, 0, stdout);
    assert.match(stdout, /lo\s+inet 127\.0\.0\.1/);
    assert.match(stdout, /eth0\s+inet 10\.87\.0\.\d+\/16/);
    assert.match(stdout, /default via 10\.87\.0\.1/);
    assert.ok(existsSync(`/sys/class/net/${bridgeName}`));
    await runner[Symbol.asyncDispose]();
    assert.ok(!existsSync(`/sys/class/net/${bridgeName}`));
    assert.deepEqual(readdirSync(join(base, "net/cni")), []);
  });

  it("uses a configuration, passes names on and cleans up what a crash left", async () => {
    const config = {
      cniVersion: "0.4.0",
      name: "kilntest",
      type: "ptp",
      ipMasq: false,
      ipam: { type: "host-local", subnet: "10.88.0.0/24" },
    };
    writeFileSync(join(base, "cni.json"), JSON.stringify(config));
    const leftover = join(base, "net/cni/leftover1");
    writeFileSync(leftover, "");
    const network = await createNetwork({ ...options(), mode: "auto" });
    assert.equal(network.mode, "cni");
    assert.ok(!existsSync(leftover));
    const runner = await executor(network);
    const { stdout } = await runIn(runner, rootfs, "hostname; ip -4 -o addr show", {
      sandbox: { hostname: "web" },
    });
    assert.match(stdout, /^web\n/);
    assert.match(stdout, /eth0\s+inet 10\.88\.0\./);
    await assert.rejects(network.acquire("a;IgnoreUnknown=0"), { code: "invalid_argument" });
    await runner[Symbol.asyncDispose]();
    assert.deepEqual(readdirSync(join(base, "net/cni")), []);
  });

  it("says what a plugin said", async () => {
    writeFileSync(
      join(base, "cni.json"),
      JSON.stringify({ cniVersion: "0.4.0", name: "x", type: "ptp", ipam: {} }),
    );
    await assert.rejects(
      createNetwork({ ...options(), mode: "cni" }),
      /CNI setup error: plugin type="ptp" failed \(add\)/,
    );
    await assert.rejects(createNetwork({ ...options(), cniBinaryDir: "/nope" }), /failed to find CNI bridge/);
  });
});
