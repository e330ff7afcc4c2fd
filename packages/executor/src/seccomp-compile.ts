import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import type { OciSeccomp } from "./seccomp.ts";

const LIBRARIES = ["libseccomp.so.2"];
const ACT_ALLOW = 0x7fff0000;
const ACT_ERRNO = 0x00050000;
const ATTRIBUTE_OPTIMIZE = 8;
const OPTIMIZE_BINARY_TREE = 2;
const UNKNOWN_SYSCALL = -1;
const COMPARISONS = new Map([
  ["SCMP_CMP_NE", 1],
  ["SCMP_CMP_LT", 2],
  ["SCMP_CMP_LE", 3],
  ["SCMP_CMP_EQ", 4],
  ["SCMP_CMP_GE", 5],
  ["SCMP_CMP_GT", 6],
  ["SCMP_CMP_MASKED_EQ", 7],
]);
const COMPARISON_BYTES = 24;

/** The functions of libseccomp that are needed. */
interface LibSeccomp {
  init(action: number): unknown;
  release(context: unknown): void;
  archNumber(name: string): number;
  archAdd(context: unknown, number: number): number;
  syscallNumber(name: string): number;
  ruleAdd(context: unknown, action: number, syscall: number, count: number, args: Uint8Array): number;
  attributeSet(context: unknown, attribute: number, value: number): number;
  exportBpf(context: unknown, fd: number): number;
}

function loadLibrary(): LibSeccomp | undefined {
  for (const name of LIBRARIES) {
    try {
      const lib = koffi.load(name);
      return {
        init: lib.func("void *seccomp_init(uint32_t action)"),
        release: lib.func("void seccomp_release(void *context)"),
        archNumber: lib.func("uint32_t seccomp_arch_resolve_name(const char *name)"),
        archAdd: lib.func("int seccomp_arch_add(void *context, uint32_t number)"),
        syscallNumber: lib.func("int seccomp_syscall_resolve_name(const char *name)"),
        ruleAdd: lib.func(
          "int seccomp_rule_add_array(void *context, uint32_t action, int syscall, unsigned int count, const uint8_t *args)",
        ),
        attributeSet: lib.func("int seccomp_attr_set(void *context, int attribute, uint32_t value)"),
        exportBpf: lib.func("int seccomp_export_bpf(void *context, int fd)"),
      };
    } catch {
      // Not installed under this name.
    }
  }
  return undefined;
}

/** Version of the machine's libseccomp, which knows the more system calls the newer it is; undefined without one. */
export function libSeccompVersion(): string | undefined {
  for (const name of LIBRARIES) {
    try {
      const version = koffi.load(name).func("const uint32_t *seccomp_version()")() as unknown;
      return (koffi.decode(version, koffi.array("uint32_t", 3)) as number[]).join(".");
    } catch {
      // Not installed under this name, or too old to tell.
    }
  }
  return undefined;
}

/**
 * Compiles a profile to the kernel's filter program, once for all containers: a runtime takes longer for this
 * than for everything else about a container. Undefined when the machine has no libseccomp or that refuses a
 * rule; the runtime then compiles the profile itself.
 */
export function compileSeccomp(profile: OciSeccomp): Buffer | undefined {
  const lib = loadLibrary();
  if (!lib) return undefined;
  const context = lib.init(ACT_ERRNO | profile.defaultErrnoRet);
  if (!context) return undefined;
  const dir = mkdtempSync(join(tmpdir(), "kiln-seccomp-"));
  try {
    if (!addArchitectures(lib, context, profile) || !addRules(lib, context, profile)) return undefined;
    // A tree instead of a list of comparisons: steps' system calls get cheaper. Older libraries don't know it.
    lib.attributeSet(context, ATTRIBUTE_OPTIMIZE, OPTIMIZE_BINARY_TREE);
    const file = join(dir, "filter");
    const fd = openSync(file, "wx");
    try {
      if (lib.exportBpf(context, fd) < 0) return undefined;
    } finally {
      closeSync(fd);
    }
    return readFileSync(file);
  } finally {
    lib.release(context);
    rmSync(dir, { recursive: true });
  }
}

const EEXIST = 17;

function addArchitectures(lib: LibSeccomp, context: unknown, profile: OciSeccomp): boolean {
  return profile.architectures.every((name) => {
    const number = lib.archNumber(name.slice("SCMP_ARCH_".length).toLowerCase());
    if (number === 0) return false;
    const result = lib.archAdd(context, number);
    return result === 0 || result === -EEXIST;
  });
}

function addRules(lib: LibSeccomp, context: unknown, profile: OciSeccomp): boolean {
  for (const rule of profile.syscalls) {
    const action = rule.action === "SCMP_ACT_ALLOW" ? ACT_ALLOW : ACT_ERRNO | (rule.errnoRet ?? 0);
    const args = comparisons(rule.args ?? []);
    for (const name of rule.names) {
      const number = lib.syscallNumber(name);
      if (number === UNKNOWN_SYSCALL) continue;
      if (lib.ruleAdd(context, action, number, rule.args?.length ?? 0, args) < 0) return false;
    }
  }
  return true;
}

/** `struct scmp_arg_cmp[]`: argument, comparison, and its two values. */
function comparisons(args: NonNullable<OciSeccomp["syscalls"][number]["args"]>): Uint8Array {
  const bytes = Buffer.alloc(Math.max(1, args.length) * COMPARISON_BYTES);
  args.forEach(({ index, op, value, valueTwo = 0 }, position) => {
    const at = position * COMPARISON_BYTES;
    bytes.writeUInt32LE(index, at);
    bytes.writeUInt32LE(COMPARISONS.get(op) ?? 0, at + 4);
    bytes.writeBigUInt64LE(BigInt(value), at + 8);
    bytes.writeBigUInt64LE(BigInt(valueTwo), at + 16);
  });
  return bytes;
}
