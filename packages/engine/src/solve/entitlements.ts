import { BuildError } from "@kiln/base";
import { csvFields } from "@kiln/formats";

/** Names of the privileges that a build may ask for. */
export type EntitlementName = "network.host" | "security.insecure" | "device";

const NAMES: readonly EntitlementName[] = ["network.host", "security.insecure", "device"];

/** Devices a build may use: all, or by name; the value is the name behind an alias, "" without one. */
export interface DeviceGrant {
  readonly all: boolean;
  readonly devices: ReadonlyMap<string, string>;
}

/** What a build has been granted. */
export interface Entitlements {
  readonly names: ReadonlySet<EntitlementName>;
  readonly devices: DeviceGrant;
}

/** Nothing granted. */
export const NO_ENTITLEMENTS: Entitlements = {
  names: new Set(),
  devices: { all: false, devices: new Map() },
};

/**
 * Reads the entitlements of a request; each must be one that the daemon allows.
 *
 * @throws BuildError `invalid_argument` / `permission_denied` in BuildKit's words.
 */
export function grantEntitlements(
  requested: readonly string[],
  allowedByDaemon: readonly string[],
): Entitlements {
  let granted = NO_ENTITLEMENTS;
  for (const text of requested) {
    const one = parseEntitlement(text);
    for (const name of one.names) {
      if (!allowedByDaemon.includes(name)) {
        throw new BuildError(
          "permission_denied",
          `granting entitlement ${name} is not allowed by build daemon configuration`,
        );
      }
    }
    granted = mergeEntitlements(granted, one);
  }
  return granted;
}

/** Everything that either grants. */
export function mergeEntitlements(a: Entitlements, b: Entitlements): Entitlements {
  return {
    names: new Set([...a.names, ...b.names]),
    devices: {
      all: a.devices.all || b.devices.all,
      devices: new Map([...a.devices.devices, ...b.devices.devices]),
    },
  };
}

function parseEntitlement(text: string): Entitlements {
  const at = text.indexOf("=");
  const key = at < 0 ? text : text.slice(0, at);
  // only `device` takes a value
  const name = NAMES.find((known) => known === (key === "device" ? key : text));
  if (name === undefined) throw new BuildError("invalid_argument", `unknown entitlement ${text}`);
  const devices =
    name === "device" ? parseDevices(at < 0 ? "" : text.slice(at + 1)) : NO_ENTITLEMENTS.devices;
  return { names: new Set([name]), devices };
}

function parseDevices(value: string): DeviceGrant {
  if (value === "") return { all: true, devices: new Map() };
  const [device = "", ...options] = csvFields(value);
  let alias = "";
  for (const option of options) {
    const at = option.indexOf("=");
    if (at < 0) throw new BuildError("invalid_argument", `invalid device config ${JSON.stringify(option)}`);
    const key = option.slice(0, at);
    if (key !== "alias") {
      throw new BuildError("invalid_argument", `unknown device config key ${JSON.stringify(key)}`);
    }
    alias = option.slice(at + 1);
  }
  return { all: false, devices: new Map([alias === "" ? [device, ""] : [alias, device]]) };
}

/** What a process would like to have. */
export interface WantedPrivileges {
  readonly hostNetwork: boolean;
  readonly insecure: boolean;
}

/** @throws BuildError `permission_denied` for what hasn't been granted. */
export function checkEntitlements(granted: Entitlements, wanted: WantedPrivileges): void {
  if (wanted.hostNetwork && !granted.names.has("network.host")) {
    throw new BuildError("permission_denied", "network.host is not allowed");
  }
  if (wanted.insecure && !granted.names.has("security.insecure")) {
    throw new BuildError("permission_denied", "security.insecure is not allowed");
  }
}
