import {
  SECCOMP_ARCHITECTURES,
  SECCOMP_RULES,
  type SeccompArg,
  type SeccompRule,
} from "./seccomp-profile.ts";

/** `linux.seccomp` of the runtime specification. */
export interface OciSeccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number;
    readonly args?: readonly SeccompArg[];
  }[];
}

/** The annotation in which crun takes a filter that is compiled already, in base64. */
export const SECCOMP_BPF_ANNOTATION = "run.oci.seccomp_bpf_data";

const EPERM = 1;
const made = new Map<string, OciSeccomp>();

/**
 * The default profile for a machine (Go's architecture name, kernel version) and a bounding set of
 * capabilities. The same object is returned for the same arguments.
 */
export function defaultSeccomp(
  architecture: string,
  kernel: readonly [number, number],
  capabilities: readonly string[],
): OciSeccomp {
  const key = [architecture, ...kernel, ...capabilities].join(" ");
  const known = made.get(key);
  if (known) return known;
  const applies = (rule: SeccompRule): boolean => {
    const arch = architecture === "386" ? "x86" : architecture;
    if (rule.onArchitectures && !rule.onArchitectures.includes(arch)) return false;
    if (rule.notOnArchitectures?.includes(arch)) return false;
    if (rule.withCapability && !capabilities.includes(rule.withCapability)) return false;
    if (rule.withoutCapability && capabilities.includes(rule.withoutCapability)) return false;
    return !rule.kernel || isAtLeast(kernel, rule.kernel);
  };
  const profile: OciSeccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: EPERM,
    architectures: SECCOMP_ARCHITECTURES.get(architecture) ?? [],
    syscalls: SECCOMP_RULES.filter(applies).map((rule) => ({
      names: rule.names.trim().split(/\s+/),
      action: rule.errno === undefined ? "SCMP_ACT_ALLOW" : "SCMP_ACT_ERRNO",
      ...(rule.errno === undefined ? {} : { errnoRet: rule.errno }),
      ...(rule.args === undefined ? {} : { args: rule.args }),
    })),
  };
  made.set(key, profile);
  return profile;
}

function isAtLeast(have: readonly [number, number], want: readonly [number, number]): boolean {
  return have[0] > want[0] || (have[0] === want[0] && have[1] >= want[1]);
}
