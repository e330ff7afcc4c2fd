import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { arch, tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { formatPlatform, normalizePlatform, onlyPlatform, type Platform } from "@kiln/oci";
import { findProgram } from "./runtime-choice.ts";

/** Where a step finds its emulator. */
export const EMULATOR_DEST = "/dev/.buildkit_qemu_emulator";

/** QEMU's names of architectures where they differ from Go's. */
const QEMU_NAMES = new Map([
  ["arm64", "aarch64"],
  ["amd64", "x86_64"],
  ["386", "i386"],
]);

/** The order in which BuildKit lists what a machine runs besides its own. */
const FOREIGN = [
  "arm64",
  "riscv64",
  "ppc64",
  "ppc64le",
  "s390x",
  "386",
  "mips64le",
  "mips64",
  "loong64",
  "arm",
];

/** CPU flags, as Linux names them, that each level of amd64 adds. */
const AMD64_LEVELS: readonly (readonly [string, readonly string[]])[] = [
  ["v2", ["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"]],
  ["v3", ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]],
  ["v4", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]],
];

const BINFMT_DIR = "/proc/sys/fs/binfmt_misc";

/** Go's name of this machine's architecture. */
export function goArchitecture(): string {
  const names: Record<string, string> = { x64: "amd64", ia32: "386", mipsel: "mipsle", ppc64: "ppc64le" };
  return names[arch()] ?? arch();
}

let detected: { readonly platforms: readonly Platform[]; readonly at: number } | undefined;

/**
 * The platforms whose programs this machine runs, its own first: by its CPU, or through binfmt_misc with an
 * interpreter that containers reach (flag F). Looked up again when the answer is older than `maxAgeMs`.
 */
export function supportedPlatforms(maxAgeMs = Number.POSITIVE_INFINITY): readonly Platform[] {
  if (!detected || Date.now() - detected.at > maxAgeMs) detected = { platforms: detect(), at: Date.now() };
  return detected.platforms;
}

function detect(): Platform[] {
  const native = goArchitecture();
  const own = normalizePlatform({ os: "linux", architecture: native });
  const found: Platform[] = [own];
  const emulated = binfmtArchitectures();
  if (native === "amd64") found.push(...amd64Levels().map((variant) => ({ ...own, variant })));
  else if (emulated.has("amd64")) found.push({ os: "linux", architecture: "amd64" });
  if (native === "amd64" && runs386()) emulated.add("386");
  for (const architecture of FOREIGN) {
    if (architecture === native || !emulated.has(architecture)) continue;
    found.push({ os: "linux", architecture });
    if (architecture === "arm") found.push({ os: "linux", architecture, variant: "v6" });
  }
  return found;
}

function amd64Levels(): string[] {
  const flags = new Set(
    /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]?.trim().split(/\s+/),
  );
  const levels: string[] = [];
  for (const [level, needed] of AMD64_LEVELS) {
    if (!needed.every((flag) => flags.has(flag))) break;
    levels.push(level);
  }
  return levels;
}

/** Architectures with an enabled binfmt_misc entry that works inside containers. */
function binfmtArchitectures(): Set<string> {
  const found = new Set<string>();
  let names: string[];
  try {
    names = readdirSync(BINFMT_DIR);
  } catch {
    return found;
  }
  for (const name of names) {
    if (name === "register" || name === "status") continue;
    const architecture = binfmtArchitecture(readFileSync(join(BINFMT_DIR, name), "utf8"));
    if (architecture !== undefined) found.add(architecture);
  }
  return found;
}

/** The architecture that an entry of binfmt_misc serves, by the ELF header it looks for. */
export function binfmtArchitecture(entry: string): string | undefined {
  if (!/^enabled$/m.test(entry) || !/^flags: .*F/m.test(entry)) return undefined;
  const magic = Buffer.from(/^magic ([0-9a-f]+)$/m.exec(entry)?.[1] ?? "", "hex");
  if (magic.length < 20 || magic.toString("latin1", 0, 4) !== "\x7fELF") return undefined;
  const is64 = magic[4] === 2;
  const isLittle = magic[5] === 1;
  const machine = isLittle ? magic.readUInt16LE(18) : magic.readUInt16BE(18);
  return ELF_MACHINES.get(`${machine}${is64 ? "-64" : "-32"}${isLittle ? "le" : "be"}`);
}

/** `e_machine`, word size and byte order of what Go calls an architecture. */
const ELF_MACHINES = new Map([
  ["183-64le", "arm64"],
  ["243-64le", "riscv64"],
  ["21-64be", "ppc64"],
  ["21-64le", "ppc64le"],
  ["22-64be", "s390x"],
  ["3-32le", "386"],
  ["62-64le", "amd64"],
  ["8-64le", "mips64le"],
  ["8-64be", "mips64"],
  ["258-64le", "loong64"],
  ["40-32le", "arm"],
]);

/** A program for i386 that does nothing but end: an ELF header, one segment and `exit(0)`. */
const EXIT_386 = Buffer.from(
  "7f454c460101010000000000000000000200030001000000548004083400000000000000000000003400200001000000" +
    "00000000010000000000000000800408008004085b0000005b000000050000000010000031db31c040cd80",
  "hex",
);

function runs386(): boolean {
  const dir = mkdtempSync(join(tmpdir(), "kiln-386-"));
  try {
    const program = join(dir, "check");
    writeFileSync(program, EXIT_386, { mode: 0o700 });
    return spawnSync(program, { stdio: "ignore" }).status === 0;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * Path of the emulator that runs programs of a platform, `buildkit-qemu-<arch>` of the search path; undefined
 * when the machine runs them itself, or has no emulator (the step then fails as it starts).
 *
 * @throws BuildError `failed_precondition` for a level of amd64 that the CPU doesn't have.
 */
export function emulatorOf(platform: Platform): string | undefined {
  const wanted = normalizePlatform(platform);
  const all = supportedPlatforms();
  if (all.some((each) => onlyPlatform(each).match(wanted))) return undefined;
  if (wanted.architecture === "amd64" && wanted.variant && wanted.variant !== "v2") {
    const levels = all.filter((each) => each.architecture === "amd64").map(formatPlatform);
    throw new BuildError(
      "failed_precondition",
      `no support for running processes with ${formatPlatform(wanted)} platform, supported: ${levels.join(", ")}`,
    );
  }
  return findProgram(`buildkit-qemu-${QEMU_NAMES.get(wanted.architecture) ?? wanted.architecture}`);
}
