import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { cleanupLeftovers } from "./leftovers.ts";
import { makeBusyboxRoot } from "./testing/busybox-root.ts";
import { processesWith } from "./testing/executor-suite.ts";
import { startZygote } from "./zygote.ts";

function cgroupsNamed(id: string): string[] {
  const dirs = ["", ...readdirSync("/sys/fs/cgroup")].map((name) => `/sys/fs/cgroup/${name}/buildkit/${id}`);
  return dirs.filter((dir) => existsSync(dir));
}

describe("zygote", () => {
  it("takes every process and mount with it when the daemon is killed", async () => {
    const base = mkdtempSync(join(tmpdir(), "kiln-crash-"));
    const marker = `87${Math.floor(Math.random() * 1e6)}`;
    const rootfs = join(base, "rootfs");
    mkdirSync(rootfs);
    makeBusyboxRoot(rootfs);
    const root = join(base, "state");
    const script = fileURLToPath(new URL("./testing/crash-daemon.ts", import.meta.url));
    const daemon = spawn(process.execPath, [script, root, rootfs, marker], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(daemon.stdout, "data");
    assert.ok(processesWith(`sleep ${marker}`).length >= 2);
    const [id = ""] = readdirSync(root).filter((name) => existsSync(join(root, name, "cgroup")));
    assert.notEqual(id, "");
    daemon.kill("SIGKILL");
    await once(daemon, "exit");
    for (let tries = 0; tries < 100 && processesWith(marker).length > 0; tries++) await delay(20);
    assert.deepEqual(processesWith(marker), []);
    assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(base));
    cleanupLeftovers(root);
    assert.deepEqual(readdirSync(root), []);
    assert.deepEqual(cgroupsNamed(id), []);
    rmSync(base, { recursive: true });
  });

  it("runs commands and reports what they wrote", async () => {
    const base = mkdtempSync(join(tmpdir(), "kiln-zygote-"));
    const zygote = startZygote();
    try {
      const host = {
        architecture: "amd64",
        kernel: [6, 0] as const,
        cgroupNamespaces: false,
        seccomp: false,
        insecure: { capabilities: [] },
        terminalGroup: true,
        rootless: false,
        noProcessSandbox: false,
      };
      const config = {
        runtime: "/bin/false",
        runtimeKeeps: false,
        hideUnifiedCgroup: false,
        noPivotRoot: false,
      };
      await zygote.request("configure", { ...config, runDir: join(base, "run"), host });
      const command = { argv: ["/bin/sh", "-c", "cat; echo err >&2; exit 7"], env: [], stdin: "in" };
      assert.deepEqual(await zygote.request("command", command), { code: 7, stdout: "in", stderr: "err\n" });
      await assert.rejects(zygote.request("command", { argv: ["/nope"], env: [], stdin: "" }), /nope/);
      const orphans = { argv: ["/bin/sh", "-c", "sleep 0.1 & exit 0"], env: [], stdin: "" };
      await Promise.all(Array.from({ length: 50 }, () => zygote.request("command", orphans)));
      await delay(400);
      const children = readFileSync(`/proc/${zygote.pid}/task/${zygote.pid}/children`, "utf8");
      assert.equal(children.trim(), "", "orphans are collected");
      assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(base));
    } finally {
      await zygote[Symbol.asyncDispose]();
      rmSync(base, { recursive: true });
    }
    await assert.rejects(zygote.request("rootPath", { id: "x" }), { code: "unavailable" });
  });
});
