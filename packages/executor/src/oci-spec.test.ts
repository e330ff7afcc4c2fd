import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { generateSpec, type SpecInput } from "./oci-spec.ts";
import { binfmtArchitecture } from "./platforms.ts";

const INPUT: SpecInput = {
  host: {
    architecture: "amd64",
    kernel: [6, 1],
    cgroupNamespaces: false,
    seccomp: true,
    insecure: { capabilities: ["CAP_SYS_ADMIN", "CAP_CHOWN"], freeLoop: 1 },
    terminalGroup: true,
    rootless: false,
    noProcessSandbox: false,
  },
  args: ["true"],
  env: ["A=b"],
  cwd: "/",
  tty: false,
  user: { uid: 1, gid: 2, supplementaryGids: [3] },
  rootPath: "/rootfs",
  readonlyRoot: false,
  hostname: "h",
  network: { kind: "host" },
  cgroupsPath: "/buildkit/x",
  securityMode: "sandbox",
  ulimits: [],
  resources: {},
  resolvConf: "/r",
  hosts: "/h",
  mounts: [],
};

const destinations = (input: SpecInput): string[] =>
  generateSpec(input).mounts.map(({ destination }) => destination);

describe("generateSpec", () => {
  it("sandboxes by default", () => {
    const { process, linux, mounts } = generateSpec(INPUT);
    assert.deepEqual(process.user, { uid: 1, gid: 2, additionalGids: [2, 3] });
    assert.equal(process.capabilities.bounding.length, 14);
    assert.deepEqual(process.capabilities.ambient, []);
    assert.equal(process.rlimits, undefined);
    assert.deepEqual(
      linux.namespaces.map(({ type }) => type),
      ["pid", "ipc", "uts", "mount"],
    );
    assert.ok(linux.seccomp?.syscalls.some(({ names }) => names.includes("clone3")));
    assert.ok(linux.maskedPaths.includes("/proc/kcore"));
    assert.ok(mounts.find(({ destination }) => destination === "/sys")?.options.includes("ro"));
  });

  it("gives an insecure step what the daemon has, and devices", () => {
    const { process, linux, mounts } = generateSpec({ ...INPUT, securityMode: "insecure" });
    assert.ok(process.capabilities.bounding.includes("CAP_SYS_ADMIN"));
    assert.deepEqual(process.capabilities.ambient, ["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    assert.equal(linux.seccomp, undefined);
    assert.deepEqual(linux.maskedPaths, []);
    assert.ok(mounts.find(({ destination }) => destination === "/sys")?.options.includes("rw"));
    assert.deepEqual(
      linux.devices?.filter(({ type }) => type === "b").map(({ path }) => path),
      Array.from({ length: 9 }, (_, i) => `/dev/loop${i}`),
    );
  });

  it("lets later mounts take the place of earlier ones", () => {
    const mount = { destination: "/dev/shm/", type: "tmpfs", source: "tmpfs", options: ["size=1"] };
    const { mounts } = generateSpec({ ...INPUT, mounts: [mount] });
    assert.deepEqual(
      mounts.filter(({ destination }) => destination === "/dev/shm"),
      [{ ...mount, destination: "/dev/shm" }],
    );
  });

  it("leaves out what a user namespace can't have", () => {
    const host = { ...INPUT.host, rootless: true, terminalGroup: false, noProcessSandbox: true };
    const spec = generateSpec({ ...INPUT, host });
    assert.ok(!destinations({ ...INPUT, host }).some((path) => path.startsWith("/sys")));
    assert.equal(spec.linux.resources, undefined);
    assert.equal(spec.linux.cgroupsPath, "");
    assert.deepEqual(spec.mounts[0], {
      destination: "/proc",
      type: "bind",
      source: "/proc",
      options: ["rbind"],
    });
    assert.ok(!spec.linux.namespaces.some(({ type }) => type === "pid"));
    assert.ok(!spec.mounts.some(({ options }) => options.includes("gid=5")));
  });

  it("passes limits on, as numbers of the runtime", () => {
    const resources = { memoryBytes: 1n << 30n, cpuShares: 2n, cpuQuotaUs: 5n, cpusetCpus: "0-1" };
    const ulimits = [{ name: "nofile", soft: 1n, hard: 2n }];
    const { process, linux } = generateSpec({ ...INPUT, resources, ulimits });
    assert.deepEqual(process.rlimits, [{ type: "RLIMIT_NOFILE", hard: 2, soft: 1 }]);
    assert.deepEqual(linux.resources?.memory, { limit: 1 << 30 });
    assert.deepEqual(linux.resources?.cpu, { shares: 2, quota: 5, period: 0, cpus: "0-1" });
  });
});

describe("binfmtArchitecture", () => {
  const entry = (magic: string, flags = "OCF", state = "enabled"): string =>
    `${state}\ninterpreter /usr/bin/qemu\nflags: ${flags}\noffset 0\nmagic ${magic}\nmask ff\n`;
  const AARCH64 = "7f454c460201010000000000000000000200b700";

  it("reads the ELF header that an entry is for", () => {
    assert.equal(binfmtArchitecture(entry(AARCH64)), "arm64");
    assert.equal(binfmtArchitecture(entry("7f454c4602020100000000000000000000020016")), "s390x");
    assert.equal(binfmtArchitecture(entry(AARCH64, "OC")), undefined);
    assert.equal(binfmtArchitecture(entry(AARCH64, "F", "disabled")), undefined);
    assert.equal(binfmtArchitecture(entry("cafebabe")), undefined);
  });
});
