import { type LookupAddress, lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { BuildError } from "@kiln/base";

/**
 * Which addresses a connection may go to. `any`: all. `noLinkLocal`: not the link-local ones, where clouds
 * keep their metadata services. `publicOnly`: neither those nor loopback and unspecified ones (for where a
 * remote server sends us).
 */
export type AddressPolicy = "any" | "noLinkLocal" | "publicOnly";

const linkLocal = new BlockList();
linkLocal.addSubnet("169.254.0.0", 16, "ipv4");
linkLocal.addSubnet("fe80::", 10, "ipv6");
linkLocal.addAddress("fd00:ec2::254", "ipv6");
const local = new BlockList();
local.addSubnet("127.0.0.0", 8, "ipv4");
local.addSubnet("0.0.0.0", 8, "ipv4");
local.addAddress("::1", "ipv6");
local.addAddress("::", "ipv6");

/** True when `address` (an IP) may be connected to. IPv4 in IPv6 counts as IPv4. */
export function isAllowedAddress(address: string, policy: AddressPolicy): boolean {
  if (policy === "any") return true;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  const plain = mapped ?? address.split("%")[0]!;
  const family = isIP(plain) === 6 ? "ipv6" : "ipv4";
  if (linkLocal.check(plain, family)) return false;
  return policy !== "publicOnly" || !local.check(plain, family);
}

/** True for `localhost` and loopback addresses, with or without a port. */
export function isLocalHost(host: string): boolean {
  const name = hostWithoutPort(host).toLowerCase();
  if (name === "localhost") return true;
  return isIP(name) !== 0 && !isAllowedAddress(name, "publicOnly") && isAllowedAddress(name, "noLinkLocal");
}

/** `[::1]:5000` and `::1` give `::1`. */
export function hostWithoutPort(host: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(host);
  if (bracketed) return bracketed[1]!;
  return isIP(host) === 6 ? host : host.replace(/:\d+$/, "");
}

/**
 * A `lookup` that fails when a name leads to a forbidden address. The connection goes to the very address
 * that was checked, so a second answer of the name server (DNS rebinding) can't get round it.
 */
export function guardedLookup(policy: AddressPolicy): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
      if (error) {
        callback(error, "");
        return;
      }
      const allowed = addresses.filter((found) => isAllowedAddress(found.address, policy));
      const first = allowed[0];
      if (first === undefined) {
        callback(forbiddenAddress(hostname), "");
        return;
      }
      if (options.all) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

/** The error for a target that the policy forbids. */
export function forbiddenAddress(host: string): BuildError {
  return new BuildError("permission_denied", `refusing to connect to ${host}: address not allowed`);
}
