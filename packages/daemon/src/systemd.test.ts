import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { Logger } from "./log.ts";
import { ActivatedSockets, notifySystemd } from "./systemd.ts";

const log = new Logger({ format: "text", level: "panic" });

test("systemd is told, and nobody else needs to listen", () => {
  notifySystemd("READY=1", {}, log);
  notifySystemd("READY=1", { NOTIFY_SOCKET: "/nowhere/notify" }, log);
  notifySystemd("READY=1", { NOTIFY_SOCKET: `/${"x".repeat(200)}` }, log);
});

test("states reach a datagram socket", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-notify-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, "notify");
  const code = `import socket,sys
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(sys.argv[1]); print("bound",flush=True)
print(s.recv(100).decode(),flush=True)`;
  const python = spawn("python3", ["-c", code, path], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await once(python, "spawn");
  } catch {
    t.skip("no python3");
    return;
  }
  t.after(() => python.kill());
  const lines = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, "bound");
  notifySystemd("STOPPING=1", { NOTIFY_SOCKET: path }, log);
  assert.equal((await lines.next()).value, "STOPPING=1");
});

test("sockets count only when they were opened for this process", () => {
  assert.throws(() => new ActivatedSockets({}, 7).fd(""), /no sockets found via socket activation/);
  assert.throws(
    () => new ActivatedSockets({ LISTEN_FDS: "1", LISTEN_PID: "8" }, 7).fd(""),
    /no sockets found via socket activation/,
  );
  assert.throws(() => new ActivatedSockets({ LISTEN_FDS: "x" }, 7).fd("4"), /fd:\/\/4: not supported yet/);
});

test("programs that the daemon starts don't get its sockets", async () => {
  const file = openSync("/dev/null", "r");
  const code = `import { ActivatedSockets } from ${JSON.stringify(new URL("./systemd.ts", import.meta.url).href)};
    import { spawnSync } from "node:child_process";
    const sockets = new ActivatedSockets({ LISTEN_FDS: "1", LISTEN_PID: String(process.pid) }, process.pid);
    const inner = spawnSync("sh", ["-c", "test -e /proc/self/fd/3 && echo leaked"]);
    process.stdout.write(sockets.fd("") + String(inner.stdout));`;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit", file],
  });
  closeSync(file);
  assert.equal(child.stdout.toString(), "3");
});
