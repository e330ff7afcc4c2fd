import { create } from "@bufbuild/protobuf";
import { type LinuxResources, LinuxResourcesSchema } from "@kiln/api/pb";

/**
 * The limits of a vertex that several builds want with different ones: the most relaxed of each, as no
 * build may get less than it asked for. Unset (0, "") means unlimited.
 */
export function mergeLinuxResources(a: unknown, b: unknown): unknown {
  if (a === undefined || b === undefined) return undefined;
  const x = a as LinuxResources;
  const y = b as LinuxResources;
  const most = (p: bigint, q: bigint): bigint => (p === 0n || q === 0n ? 0n : p > q ? p : q);
  const swap = x.memorySwap === -1n || y.memorySwap === -1n ? -1n : most(x.memorySwap, y.memorySwap);
  return create(LinuxResourcesSchema, {
    memory: most(x.memory, y.memory),
    memorySwap: swap,
    cpuShares: most(x.cpuShares, y.cpuShares),
    cpuPeriod: x.cpuPeriod === y.cpuPeriod ? x.cpuPeriod : 0n,
    cpuQuota: x.cpuPeriod === y.cpuPeriod ? most(x.cpuQuota, y.cpuQuota) : 0n,
    cpusetCpus: x.cpusetCpus === y.cpusetCpus ? x.cpusetCpus : "",
    cpusetMems: x.cpusetMems === y.cpusetMems ? x.cpusetMems : "",
  });
}
