import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type DaemonConfig, loadConfig } from "./config.ts";
import { eachOption } from "./options.ts";

function configOf(toml: string, ...args: string[]): DaemonConfig {
  const folder = mkdtempSync(join(tmpdir(), "kiln-config"));
  try {
    const file = join(folder, "buildkitd.toml");
    writeFileSync(file, toml);
    const line = loadConfig(["--config", file, ...args], {});
    assert.equal(line.kind, "run");
    return (line as { config: DaemonConfig }).config;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("flags win over the file, the file over defaults", () => {
  const toml =
    'root = "/from/file"\ndebug = true\n[grpc]\naddress = ["unix:///a.sock", "tcp://127.0.0.1:1"]\n';
  const config = configOf(toml);
  assert.equal(config.root, "/from/file");
  assert.deepEqual(config.addresses, ["unix:///a.sock", "tcp://127.0.0.1:1"]);
  assert.equal(config.log.level, "debug");
  assert.equal(configOf(toml, "--root", "/from/flag").root, "/from/flag");
  assert.equal(configOf("").history.maxEntries, 50);
  assert.equal(configOf("[history]\nmaxEntries = 0\n").history.maxEntries, 0);
});

test("mirrors and plain HTTP of registries", () => {
  const { registries } = configOf(
    '[registry."docker.io"]\nmirrors = ["127.0.0.1:5000"]\n[registry."127.0.0.1:5000"]\nhttp = true\n',
  );
  assert.match(
    JSON.stringify(registries, (_key, value: unknown) => (value instanceof Map ? [...value] : value)),
    /127\.0\.0\.1:5000/,
  );
});

test("rules of garbage collection: the file's, sizes and shares of the disk", () => {
  const { gcPolicy } = configOf(
    `[[worker.oci.gcpolicy]]
all = true
keepDuration = "48h"
maxUsedSpace = "2GB"
filters = ["type==source.local"]
`,
  ).worker;
  assert.deepEqual(gcPolicy, [
    {
      all: true,
      filters: ["type==source.local"],
      keepDurationMs: 48 * 3600_000,
      reservedSpace: 0,
      maxUsedSpace: 2 * 1024 ** 3,
      minFreeSpace: 0,
    },
  ]);
});

test("what isn't supported is refused by name, as a flag and in the file", () => {
  const refused = [...eachOption()].filter(
    ([, option]) => "refused" in option && option.refused !== undefined,
  );
  assert.ok(refused.length > 3);
  for (const [, option] of refused) {
    if (option.flag === undefined || option.kind !== "bool") continue;
    assert.throws(
      () => configOf("", `--${option.flag}`),
      (error) => error instanceof Error && error.message.startsWith(`--${option.flag}: `),
    );
  }
  assert.throws(
    () => configOf("[worker.containerd]\nenabled = true\n"),
    /containerd worker is not supported/,
  );
});

test("settings are used, or refused by name", () => {
  assert.equal(configOf('[grpc]\ndebugAddress = "127.0.0.1:6060"\n').debugAddress, "127.0.0.1:6060");
  assert.throws(() => configOf('[worker.oci]\nsessionAuthTimeout = "1s"\n'), /sessionAuthTimeout: /);
});

test("the socket for traces stands beside the default address, or else in the daemon's own folder", () => {
  assert.deepEqual(configOf("").traceSocket, { path: "/run/buildkit/otel-grpc.sock", isGiven: false });
  assert.equal(
    configOf("", "--root", "/r", "--addr", "unix:///x.sock").traceSocket.path,
    "/r/otel-grpc.sock",
  );
  assert.deepEqual(configOf('[otel]\nsocketPath = "/run/otel.sock"\n').traceSocket, {
    path: "/run/otel.sock",
    isGiven: true,
  });
});

test("unknown flags and broken files say where", () => {
  assert.throws(() => configOf("", "--frob"), /frob/);
  assert.throws(() => configOf("root = \n"), /toml|TOML|line 1/i);
});
