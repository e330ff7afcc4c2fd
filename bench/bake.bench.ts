/**
 * `bake --print` of targets from a matrix, the program's start included: CPU seconds (user and system) and wall time,
 * beside buildx when it is on the PATH. The two run in turns, so that what the machine does besides falls on both.
 *
 * Usage: node bench/bake.bench.ts [REPETITIONS]; needs `make build`.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BIN } from "../e2e/support/kilnd.ts";

const FLAVORS = ["alpine", "debian", "slim", "dev", "fips", "arm", "jit", "min", "max", "ubi"];
/** Sizes that both print, and those that only show whether time grows with the size. */
const COMPARED = [10, 1000];
const ALONE = [2000, 5000, 10_000];

interface Usage {
  readonly cpuS: number;
  readonly wallS: number;
}

function definition(targets: number): string {
  const versions = Array.from(
    { length: targets / FLAVORS.length },
    (_, i) => `"${Math.floor(i / 10)}.${i % 10}"`,
  );
  return `variable "TAG" { default = "latest" }
variable "REGISTRY" { default = "ghcr.io/acme" }
function "tag" {
  params = [name, flavor]
  result = ["\${REGISTRY}/\${name}:\${TAG}-\${flavor}", equal(TAG, "latest") ? "" : "\${REGISTRY}/\${name}:\${flavor}"]
}
target "_common" {
  args = { GO_VERSION = "1.26" }
  platforms = ["linux/amd64", "linux/arm64"]
  labels = { "org.opencontainers.image.source" = "https://example.com/acme" }
}
group "default" { targets = ["app"] }
target "app" {
  name = "app-\${replace(version, ".", "-")}-\${flavor}"
  inherits = ["_common"]
  matrix = {
    version = [${versions.join(", ")}]
    flavor = ${JSON.stringify(FLAVORS)}
  }
  context = "./app/\${version}"
  args = { VERSION = version, FLAVOR = flavor, MAJOR = split(".", version)[0] }
  tags = compact(tag("app-\${version}", flavor))
  cache-from = ["type=registry,ref=\${REGISTRY}/cache:\${version}-\${flavor}"]
}
`;
}

/** Runs a program to its end; the shell tells what it and its children used. */
function measure(program: string, args: readonly string[]): Usage {
  const from = performance.now();
  const script = '"$@" >/dev/null 2>&1 || exit 1; times';
  const { status, stdout } = spawnSync("sh", ["-c", script, "sh", program, ...args], { encoding: "utf8" });
  const wallS = (performance.now() - from) / 1000;
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${status}`);
  const [, children = ""] = stdout.trim().split("\n");
  const seconds = [...children.matchAll(/(\d+)m([\d.]+)s/g)].map(([, m, s]) => Number(m) * 60 + Number(s));
  return { cpuS: seconds.reduce((sum, part) => sum + part, 0), wallS };
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function row(folder: string, targets: number, programs: readonly string[], repetitions: number): string {
  const file = join(folder, `${targets}.hcl`);
  writeFileSync(file, definition(targets));
  const usages = programs.map((): Usage[] => []);
  for (let i = 0; i < repetitions; i++) {
    for (const [at, program] of programs.entries()) {
      usages[at]?.push(measure(program, ["bake", "-f", file, "--print"]));
    }
  }
  const cells = usages.flatMap((list) => [
    median(list.map(({ cpuS }) => cpuS)).toFixed(2),
    median(list.map(({ wallS }) => wallS)).toFixed(2),
  ]);
  return [targets, ...cells].join("\t");
}

const repetitions = Number(process.argv[2] ?? 5);
const kiln = join(BIN, "kiln");
const hasBuildx = spawnSync("sh", ["-c", "command -v buildx"]).status === 0;
if (!hasBuildx) console.error("buildx isn't on the PATH: no column to compare with");
const programs = hasBuildx ? [kiln, "buildx"] : [kiln];
const folder = mkdtempSync(join(tmpdir(), "kiln-bench-bake-"));
try {
  console.log(
    ["targets", ...programs.flatMap((name) => [`${name.split("/").at(-1)} cpu s`, "wall s"])].join("\t"),
  );
  for (const targets of COMPARED) console.log(row(folder, targets, programs, repetitions));
  for (const targets of ALONE) console.log(row(folder, targets, [kiln], Math.min(repetitions, 3)));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
