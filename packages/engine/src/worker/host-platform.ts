import { arch } from "node:process";
import type { Platform } from "@kiln/oci";

/** Node's names of CPUs in OCI's words. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "amd64",
  ia32: "386",
  arm: "arm",
  arm64: "arm64",
  loong64: "loong64",
  ppc64: "ppc64le",
  riscv64: "riscv64",
  s390x: "s390x",
};

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return { os: "linux", architecture: ARCHITECTURES[arch] ?? arch };
}
