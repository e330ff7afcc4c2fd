import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CdiRegistry } from "./cdi-registry.ts";
import { createOciExecutor } from "./oci-executor.ts";
import { makeBusyboxRoot } from "./testing/busybox-root.ts";
import { runIn } from "./testing/executor-suite.ts";
import { startZygote } from "./zygote.ts";

const GPU = `
cdiVersion: "0.6.0"
kind: "vendor.com/gpu"
annotations: { org.mobyproject.buildkit.device.class: "gpu-class" }
containerEdits: { env: ["COMMON=1"] }
devices:
  - name: one
    containerEdits:
      env: ["GPU=one", "PATH=/bin"]
      deviceNodes: [{ path: /dev/gpu0, hostPath: /dev/null, permissions: rw }]
      mounts: [{ hostPath: /etc/hostname, containerPath: /opt/x/gpu.txt, options: [ro, bind] }]
      additionalGids: [77]
  - name: two
    annotations: { org.mobyproject.buildkit.device.autoallow: "true" }
    containerEdits: { env: ["GPU=two"] }
`;

describe("CdiRegistry", () => {
  let base: string;
  let registry: CdiRegistry;
  const warnings: string[] = [];
  before(() => {
    base = mkdtempSync(join(tmpdir(), "kiln-cdi-"));
    for (const name of ["a", "b"]) mkdirSync(join(base, name));
    writeFileSync(join(base, "a/gpu.yaml"), GPU);
    writeFileSync(join(base, "a/broken.json"), "{");
    writeFileSync(join(base, "a/ignored.txt"), GPU);
    registry = new CdiRegistry({
      specDirs: [join(base, "a"), join(base, "b"), join(base, "missing")],
      autoAllowed: [],
      warn: (text) => warnings.push(text),
    });
  });
  after(() => rmSync(base, { recursive: true }));

  const find = (name: string, optional = false) => registry.find([{ name, optional }]);

  it("finds devices by name, kind, wildcard and class", () => {
    const both = ["vendor.com/gpu=one", "vendor.com/gpu=two"];
    assert.deepEqual(find("vendor.com/gpu=two"), ["vendor.com/gpu=two"]);
    assert.deepEqual(find("vendor.com/gpu"), ["vendor.com/gpu=one"]);
    assert.deepEqual(find("vendor.com/gpu=*"), both);
    assert.deepEqual(find("gpu-class"), both);
    assert.deepEqual(find("vendor.com/gpu=three", true), []);
    assert.throws(
      () => find("vendor.com/gpu=three"),
      /required device "vendor.com\/gpu=three" is not registered/,
    );
    assert.ok(warnings.some((text) => text.includes("broken.json")));
    assert.deepEqual(
      registry.list().map(({ name, autoAllow }) => [name, autoAllow]),
      [
        ["vendor.com/gpu=one", false],
        ["vendor.com/gpu=two", true],
      ],
    );
  });

  it("prefers later directories, and drops what is described twice", () => {
    const spec = {
      cdiVersion: "0.6.0",
      kind: "x.com/y",
      devices: [{ name: "d", containerEdits: { env: ["A=b"] } }],
    };
    writeFileSync(join(base, "a/x1.json"), JSON.stringify({ ...spec, devices: [{ name: "d" }] }));
    assert.deepEqual(registry.edits([{ name: "x.com/y=d", optional: false }])?.env, []);
    writeFileSync(join(base, "a/x2.json"), JSON.stringify(spec));
    assert.throws(() => find("x.com/y=d"), /not registered/);
    writeFileSync(join(base, "b/x.json"), JSON.stringify(spec));
    assert.deepEqual(registry.edits([{ name: "x.com/y=d", optional: false }])?.env, ["A=b"]);
  });

  it("puts devices into containers", async () => {
    const zygote = startZygote();
    try {
      const executor = await createOciExecutor({ root: join(base, "state"), zygote, cdi: registry });
      const root = makeBusyboxRoot(mkdtempSync(join(base, "root-")));
      const cdiDevices = [{ name: "vendor.com/gpu=one", optional: false }];
      const { stdout, stderr, code } = await runIn(
        executor,
        root,
        "echo $COMMON $GPU; stat -c %t:%T /dev/gpu0; echo x > /dev/gpu0 && echo written; test -s /opt/x/gpu.txt; id -G",
        { sandbox: { cdiDevices } },
      );
      assert.deepEqual([stdout, stderr, code], ["1 one\n1:3\nwritten\n0 77\n", "", 0]);
      await executor[Symbol.asyncDispose]();
    } finally {
      await zygote[Symbol.asyncDispose]();
    }
  });
});
