import { spawnSync } from "node:child_process";

/** Removes what CNI's firewall plugin leaves of a bridge in iptables: it has no end of its own for it. */
export function removeBridgeRules(bridge: string): void {
  const [first, second] = ["CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"] as const;
  const note = ["-m", "comment", "--comment", "CNI firewall plugin rules (ingressPolicy: same-bridge)", "-j"];
  spawnSync("iptables", ["-D", first, "-i", bridge, "!", "-o", bridge, ...note, second]);
  spawnSync("iptables", ["-D", second, "-o", bridge, ...note, "DROP"]);
}
