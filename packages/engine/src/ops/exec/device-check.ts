import { create } from "@bufbuild/protobuf";
import { type CDIDevice, CDIDeviceSchema, type ExecOp } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { CdiRegistry } from "@kiln/executor";
import { quoteGo } from "@kiln/formats";
import type { Entitlements } from "../../solve/entitlements.ts";

/** Says whether a step may have the devices it asks for, and leaves in the op those that it gets. */
export type DeviceCheck = (exec: ExecOp, granted: Entitlements) => void;

/**
 * For a daemon without devices.
 *
 * @throws BuildError `failed_precondition` for a device that the step can't do without.
 */
export function refuseDevices(exec: ExecOp): void {
  const needed = exec.cdiDevices.find((device) => !device.optional);
  if (needed === undefined) {
    exec.cdiDevices = [];
    return;
  }
  const step = exec.meta?.args.join(" ") || "exec";
  throw new BuildError(
    "failed_precondition",
    `CDI device ${quoteGo(needed.name)} is required by step ${quoteGo(step)}, but CDI device support is disabled`,
  );
}

/**
 * For a daemon with devices: a build may use those that it has been granted, by their names or under an alias,
 * and those that are open to all.
 *
 * @throws (the check) BuildError `permission_denied` for others, `not_found` for devices that aren't there.
 */
export function deviceCheck(registry: CdiRegistry): DeviceCheck {
  return (exec, granted) => {
    if (exec.cdiDevices.length === 0) return;
    const config = granted.names.has("device") ? granted.devices : undefined;
    if (config?.all) return;
    const allowed: CDIDevice[] = [];
    const asked: CDIDevice[] = [];
    for (const device of exec.cdiDevices) {
      const name = config?.devices.get(device.name) ?? "";
      if (name === "") asked.push(device);
      else allowed.push(create(CDIDeviceSchema, { name, optional: device.optional }));
    }
    const found = registry.find(asked);
    const known = new Map(registry.list().map((device) => [device.name, device]));
    const names = [...(config?.devices.keys() ?? [])];
    const grantedNames = new Set(
      found.length === 0 ? [] : names.flatMap((name) => registry.find([{ name, optional: false }])),
    );
    const forbidden = found.filter((name) => !grantedNames.has(name) && !known.get(name)?.autoAllow);
    if (forbidden.length > 0) throw notAllowed(forbidden);
    exec.cdiDevices = [...allowed, ...found.map((name) => create(CDIDeviceSchema, { name }))];
  };
}

function notAllowed(names: readonly string[]): BuildError {
  const what = names.length === 1 ? `device ${names[0]} is` : `devices ${names.join(", ")} are`;
  return new BuildError("permission_denied", `${what} requested by the build but not allowed`);
}
