import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ExecOpSchema } from "@kiln/api/pb";
import { CdiRegistry } from "@kiln/executor";
import { grantEntitlements } from "../../solve/entitlements.ts";
import { deviceCheck, refuseDevices } from "./device-check.ts";

describe("deviceCheck", () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-devices-"));
  const device = (name: string) => ({ name, containerEdits: { env: ["A=b"] } });
  const spec = {
    cdiVersion: "0.6.0",
    kind: "v.com/d",
    devices: [device("one"), device("two"), device("open")],
  };
  writeFileSync(join(dir, "d.json"), JSON.stringify(spec));
  const check = deviceCheck(new CdiRegistry({ specDirs: [dir], autoAllowed: ["v.com/d=open"] }));
  after(() => rmSync(dir, { recursive: true }));

  function checked(names: string[], granted: string[]): string[] {
    const exec = create(ExecOpSchema, { cdiDevices: names.map((name) => ({ name })) });
    check(exec, grantEntitlements(granted, ["device"]));
    return exec.cdiDevices.map(({ name }) => name);
  }

  it("lets builds have what they were granted and what is open", () => {
    assert.deepEqual(checked(["v.com/d=one"], ["device"]), ["v.com/d=one"]);
    assert.deepEqual(checked(["v.com/d=one"], ["device=v.com/d=one"]), ["v.com/d=one"]);
    assert.deepEqual(checked(["v.com/d=open"], []), ["v.com/d=open"]);
    assert.deepEqual(checked(["mine"], ["device=v.com/d=one,alias=mine"]), ["v.com/d=one"]);
    assert.deepEqual(checked(["v.com/d=*"], ["device=v.com/d=*"]), [
      "v.com/d=one",
      "v.com/d=open",
      "v.com/d=two",
    ]);
  });

  it("refuses the rest by name", () => {
    assert.throws(
      () => checked(["v.com/d=one"], []),
      /^BuildError: device v.com\/d=one is requested by the build but not allowed$/,
    );
    assert.throws(
      () => checked(["v.com/d=*"], []),
      /devices v.com\/d=one, v.com\/d=two are requested by the build but not allowed/,
    );
    assert.throws(() => checked(["v.com/d=nope"], []), /required device "v.com\/d=nope" is not registered/);
    const exec = create(ExecOpSchema, {
      meta: { args: ["a", "b"] },
      cdiDevices: [{ name: "x", optional: true }],
    });
    refuseDevices(exec);
    assert.deepEqual(exec.cdiDevices, []);
    const needy = create(ExecOpSchema, { meta: { args: ["a", "b"] }, cdiDevices: [{ name: "x" }] });
    assert.throws(
      () => refuseDevices(needy),
      /CDI device "x" is required by step "a b", but CDI device support is disabled/,
    );
  });
});
