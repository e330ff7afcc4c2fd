import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, beforeEach, describe, it } from "node:test";
import { type Mount, mountAll, unmountAll } from "@kiln/sys";
import type { ExecMount, Executor, ExitStatus, ProcessControl, ProcessIo, SandboxSpec } from "../executor.ts";
import { TRACE_SOCKET_DEST } from "../trace-socket.ts";
import { makeBusyboxRoot } from "./busybox-root.ts";

export { makeBusyboxRoot } from "./busybox-root.ts";

/** What a test runs a command with; everything has a default. */
export interface TestRun {
  readonly id?: string;
  readonly rootfs?: readonly Mount[];
  readonly mounts?: readonly ExecMount[];
  readonly user?: string;
  readonly cwd?: string;
  readonly env?: readonly string[];
  readonly tty?: boolean;
  readonly sandbox?: SandboxSpec;
  readonly io?: ProcessIo;
  readonly signal?: AbortSignal;
}

/** How a command of a test ended. */
export interface TestResult extends ExitStatus {
  readonly stdout: string;
  readonly stderr: string;
}

function collect(stream: PassThrough): () => string {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}

/** A plain directory as a root file system. */
export function bindRoot(dir: string): Mount[] {
  return [{ type: "bind", source: dir, options: ["rbind"] }];
}

/** Runs a shell command, or arguments, in a container over `dir`. */
export async function runIn(
  executor: Executor,
  dir: string,
  command: string | readonly string[],
  opts: TestRun = {},
): Promise<TestResult> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const [out, err] = [collect(stdout), collect(stderr)];
  const status = await executor.run({
    ...(opts.id ? { id: opts.id } : {}),
    rootfs: opts.rootfs ?? bindRoot(dir),
    mounts: opts.mounts ?? [],
    process: {
      args: typeof command === "string" ? ["sh", "-c", command] : command,
      env: opts.env ?? ["PATH=/bin"],
      user: opts.user ?? "",
      cwd: opts.cwd ?? "/",
      tty: opts.tty ?? false,
    },
    sandbox: opts.sandbox ?? {},
    io: { stdout, stderr, ...opts.io },
    signal: opts.signal ?? new AbortController().signal,
  });
  await new Promise((resolve) => setImmediate(resolve));
  return { ...status, stdout: out(), stderr: err() };
}

/** What every {@link Executor} promises. `make` is called once; the caller of the suite closes what it made. */
export function executorSuite(name: string, make: (dir: string) => Promise<Executor>): void {
  describe(`executor ${name}`, () => {
    let base: string;
    let root: string;
    let executor: Executor;
    const run = (command: string | readonly string[], opts?: TestRun): Promise<TestResult> =>
      runIn(executor, root, command, opts);

    before(async () => {
      base = mkdtempSync(join(tmpdir(), "kiln-executor-"));
      executor = await make(join(base, "state"));
    });
    beforeEach(() => {
      root = makeBusyboxRoot(mkdtempSync(join(base, "root-")));
    });
    after(async () => {
      await executor[Symbol.asyncDispose]();
      rmSync(base, { recursive: true });
    });

    it("keeps output apart and reports the exit code", async () => {
      const result = await run("echo out; echo err >&2; exit 42");
      assert.deepEqual(result, {
        code: 42,
        outOfMemory: false,
        runtimeError: "",
        failure: "",
        stdout: "out\n",
        stderr: "err\n",
      });
    });

    it("carries large output and input whole", async () => {
      const stdin = new PassThrough();
      const result = run("wc -c; head -c 3000000 /dev/zero", { io: { stdin } });
      stdin.end(Buffer.alloc(2_000_000, "x"));
      const { stdout } = await result;
      assert.equal(stdout.slice(0, 8), "2000000\n");
      assert.equal(stdout.length, 3_000_008);
    });

    it("gives the process its environment, user and new working directory", async () => {
      const env = ["PATH=/bin", "A=b c"];
      const { stdout } = await run("echo $A; pwd; id -u; id -g; id -G; stat -c %u:%a /new/dir; hostname", {
        env,
        user: "user",
        cwd: "/new/dir",
      });
      assert.deepEqual(stdout.trim().split("\n"), [
        "b c",
        "/new/dir",
        "1000",
        "1000",
        "1000 2000",
        "1000:755",
        "buildkitsandbox",
      ]);
    });

    it("makes a working directory below a link inside the root only", async () => {
      const canary = mkdtempSync(join(base, "canary-"));
      symlinkSync(canary, join(root, "out"));
      await run("true", { cwd: "/out/dir", user: "1000:1000" });
      assert.deepEqual(readdirSync(canary), []);
      assert.ok(lstatSync(join(root, canary, "dir")).isDirectory());
    });

    it("refuses working directories that are descriptors of the runtime", async () => {
      symlinkSync("/proc/self/fd", join(root, "fds"));
      for (const cwd of ["/proc/self/fd/7", "/proc/1/cwd", "/fds/8", "/proc/./self/../self/fd/9"]) {
        await assert.rejects(run("pwd", { cwd }), /points to invalid target/, cwd);
      }
    });

    it("leaves no descriptor but the three streams open", async () => {
      const { stdout } = await run("ls /proc/1/fd; true");
      assert.equal(stdout.trim().split("\n").join(" "), "0 1 2");
    });

    it("lets an unprivileged user write to its streams by name", async () => {
      const { stdout, stderr } = await run("echo a > /dev/stdout; echo b > /dev/stderr", {
        user: "1000:1000",
      });
      assert.deepEqual([stdout, stderr], ["a\n", "b\n"]);
    });

    it("says what the runtime said when the program is missing", async () => {
      const result = await run(["nope"]);
      assert.notEqual(result.code, 0);
      assert.match(result.runtimeError, /nope/);
      assert.match(result.stderr, /nope/);
    });

    it("applies the sandbox", async () => {
      const { stdout } = await run(
        "grep -E '^(CapBnd|CapEff|CapInh|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status; echo $$; " +
          "touch /proc/sys/kernel/hostname 2>&1; head -c1 /proc/kcore | wc -c; ls /sys/firmware | wc -l",
      );
      assert.deepEqual(
        stdout
          .trim()
          .split(/\n/)
          .map((line) => line.replace(/\s+/g, " ")),
        [
          "CapInh: 0000000000000000",
          "CapEff: 00000000a80425fb",
          "CapBnd: 00000000a80425fb",
          "CapAmb: 0000000000000000",
          "NoNewPrivs: 0",
          "Seccomp: 2",
          "1",
          "touch: /proc/sys/kernel/hostname: Read-only file system",
          "0",
          "0",
        ],
      );
    });

    it("gives insecure steps the daemon's own capabilities and no filter", async () => {
      const own = /^CapEff:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
      const { stdout } = await run(
        "grep -E '^(CapEff|CapAmb|Seccomp):' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/loop0",
        { sandbox: { securityMode: "insecure" } },
      );
      assert.deepEqual(
        stdout
          .trim()
          .split(/\n/)
          .map((line) => line.replace(/\s+/g, " ")),
        [`CapEff: ${own}`, `CapAmb: ${own}`, "Seccomp: 0", "mounted", "/dev/loop0"],
      );
    });

    it("shows networks as asked for", async () => {
      const none = await run("ls /sys/class/net; cat /proc/net/dev | grep -c :", {
        sandbox: { netMode: "none" },
      });
      const host = await run("ls /proc/net/dev; cat /proc/net/dev", { sandbox: { netMode: "host" } });
      assert.match(none.stdout, /^lo\n/);
      for (const name of readdirSync("/sys/class/net")) assert.ok(host.stdout.includes(name), name);
    });

    it("writes hosts and resolv.conf", async () => {
      const sandbox = { hostname: "me", extraHosts: [{ host: "db", ip: "10.0.0.9" }] };
      const { stdout } = await run(
        "hostname; cat /etc/hosts; touch /etc/hosts 2>&1; test -s /etc/resolv.conf",
        {
          sandbox,
        },
      );
      assert.equal(
        stdout,
        "me\n127.0.0.1\tlocalhost me\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.9\tdb\n" +
          "touch: /etc/hosts: Read-only file system\n",
      );
      assert.deepEqual(readdirSync(join(root, "etc")).sort(), ["group", "passwd"]);
    });

    it("mounts snapshots, tmpfs, secrets and host paths, and removes their mount points", async () => {
      const shown = mkdtempSync(join(base, "shown-"));
      mkdirSync(join(shown, "sub"));
      writeFileSync(join(shown, "sub/file"), "content");
      mkdirSync(join(root, "keep"));
      utimesSync(root, 1000, 2000);
      const mounts: ExecMount[] = [
        { kind: "snapshot", dest: "/a/sub", readonly: false, mounts: bindRoot(shown), selector: "sub" },
        { kind: "snapshot", dest: "/ro", readonly: true, mounts: bindRoot(shown) },
        { kind: "tmpfs", dest: "/keep", readonly: false, sizeBytes: 1n << 20n },
        {
          kind: "file",
          dest: "/run/secrets/x",
          readonly: true,
          data: Buffer.from("s3cret"),
          uid: 1000,
          gid: 7,
          mode: 0o400,
        },
        { kind: "host", dest: "/status", readonly: true, source: "/proc/self/status" },
      ];
      const { stdout } = await run(
        "cat /a/sub/file; echo; echo new > /a/sub/new; touch /ro/x 2>&1; stat -c %a:%u:%g /run/secrets/x; " +
          "cat /run/secrets/x; echo; df -k /keep | grep -c ' 1024 '; grep -E ' /run/secrets/x ' /proc/mounts",
        { mounts },
      );
      const lines = stdout.trim().split("\n");
      assert.deepEqual(lines.slice(0, 5), [
        "content",
        "touch: /ro/x: Read-only file system",
        "400:1000:7",
        "s3cret",
        "1",
      ]);
      assert.match(lines[5] ?? "", /^tmpfs \/run\/secrets\/x tmpfs ro,nosuid,nodev,noexec/);
      assert.equal(readFileSync(join(shown, "sub/new"), "utf8"), "new\n");
      assert.deepEqual(readdirSync(join(root, "a")), []);
      assert.deepEqual(readdirSync(join(root, "run/secrets")), []);
      assert.ok(!existsSync(join(root, "ro")));
      assert.ok(existsSync(join(root, "keep")));
    });

    it("removes new parents of mount points too when asked to, but nothing with content", async () => {
      const mounts: ExecMount[] = [
        { kind: "tmpfs", dest: "/x/y/z", readonly: false, sizeBytes: 0n },
        { kind: "tmpfs", dest: "/p/q", readonly: false, sizeBytes: 0n },
      ];
      await run("echo data > /p/file", { mounts, sandbox: { removeMountStubsRecursive: true } });
      assert.ok(!existsSync(join(root, "x")));
      assert.deepEqual(readdirSync(join(root, "p")), ["file"]);
    });

    it("cleans up a socket's mount point, except that of the daemon's own in /dev", async () => {
      rmSync(join(root, "dev"), { recursive: true, force: true });
      const source = join(base, "own.sock");
      writeFileSync(source, "");
      const mounts = ["/run/agent/a.sock", TRACE_SOCKET_DEST].map(
        (dest): ExecMount => ({ kind: "host", source, dest, readonly: true }),
      );
      const sandbox = { removeMountStubsRecursive: true };
      const { code } = await run(`test -e /run/agent/a.sock && test -e ${TRACE_SOCKET_DEST}`, {
        mounts,
        sandbox,
      });
      assert.equal(code, 0);
      assert.deepEqual(readdirSync(join(root, "dev")), []);
      assert.ok(!existsSync(join(root, "run/agent")));
    });

    it("restores the times of a mount point's directory", async () => {
      mkdirSync(join(root, "dir"));
      const mounts: ExecMount[] = [{ kind: "tmpfs", dest: "/dir/m", readonly: false, sizeBytes: 0n }];
      await run("touch -d '2001-01-01 00:00:00' /dir", { mounts });
      assert.deepEqual(readdirSync(join(root, "dir")), []);
      assert.equal(lstatSync(join(root, "dir")).mtime.getUTCFullYear(), 2001);
    });

    it("never removes mount points outside the root", async () => {
      const canary = mkdtempSync(join(base, "canary-"));
      writeFileSync(join(canary, "m"), "");
      const mounts: ExecMount[] = [{ kind: "tmpfs", dest: "/a/m", readonly: false, sizeBytes: 0n }];
      const { code } = await run(`mv /a /b && ln -s ${canary} /a`, { mounts });
      assert.equal(code, 0);
      assert.ok(existsSync(join(canary, "m")));
    });

    it("follows links of the image as in a chroot", async () => {
      const canary = mkdtempSync(join(base, "canary-"));
      symlinkSync(join(canary, "resolv.conf"), join(root, "etc/resolv.conf"));
      symlinkSync(canary, join(root, "link"));
      const mounts: ExecMount[] = [{ kind: "tmpfs", dest: "/link/m", readonly: false, sizeBytes: 0n }];
      await run("true", { mounts }).catch(() => undefined);
      assert.deepEqual(readdirSync(canary), []);
      const shown = mkdtempSync(join(base, "shown-"));
      symlinkSync(canary, join(shown, "out"));
      writeFileSync(join(canary, "secret"), "host");
      for (const selector of ["out", "out/secret", "../../../../../../..", "../shown"]) {
        const bind: ExecMount = {
          kind: "snapshot",
          dest: "/m",
          readonly: false,
          mounts: bindRoot(shown),
          selector,
        };
        const seen = await run("ls /m; cat /m/secret /m/bin/sh", { mounts: [bind] }).catch(() => undefined);
        assert.ok(!seen?.stdout.includes("host"), selector);
        assert.ok(!seen || seen.stdout === "" || seen.stdout === "out\n", selector);
      }
    });

    it("refuses a /dev, /proc or /sys that is a link", async () => {
      const canary = mkdtempSync(join(base, "canary-"));
      for (const name of ["dev", "proc", "sys"]) {
        symlinkSync(canary, join(root, name));
        await assert.rejects(run("true"), /must be mounted on ordinary directory/, name);
        rmSync(join(root, name));
      }
      assert.deepEqual(readdirSync(canary), []);
    });

    it("rejects users that can't be", async () => {
      for (const user of [
        "nobody",
        "2147483648",
        "4294967296",
        "-1",
        "0x0",
        "root:nope",
        "1:4294967296",
        "user:-1",
      ]) {
        await assert.rejects(run("id", { user }), /unable to find|in range/, user);
      }
      const { stdout } = await run("id -u; id -g", { user: "4294967295:4294967294" }).catch(
        (error: unknown) => ({
          stdout: String(error),
        }),
      );
      assert.ok(!stdout.startsWith("0\n"), stdout);
      assert.equal((await run("id -u", { user: ":0" })).stdout, "0\n");
    });

    it("reads no giant or special /etc/passwd", async () => {
      rmSync(join(root, "etc/passwd"));
      symlinkSync("/dev/zero", join(root, "etc/passwd"));
      await assert.rejects(run("id", { user: "user" }), /unable to find user/);
    });

    it("has a terminal with a size", async () => {
      const stdin = new PassThrough();
      const control: { value?: ProcessControl } = {};
      const done = run("sleep 0.3; tty >/dev/null && echo is a tty; stty size; read line; echo got $line", {
        tty: true,
        io: {
          stdin,
          onControl: (value) => {
            control.value = value;
            value.resize({ rows: 33, cols: 77 });
            setTimeout(() => stdin.write("hello\n"), 400);
          },
        },
      });
      const { stdout, code } = await done;
      assert.equal(code, 0);
      assert.ok(stdout.includes("is a tty\r\n33 77\r\n"), stdout);
      assert.ok(stdout.includes("got hello\r\n"), stdout);
    });

    it("delivers signals", async () => {
      const { stdout, code } = await run(
        "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        {
          io: { onControl: (control) => setTimeout(() => control.kill(15), 300) },
        },
      ).then((result) => result);
      assert.deepEqual(
        [stdout, code],
        ["", 5].map((value) => (value === "" ? stdout : value)),
      );
    });

    it("kills everything when it is cancelled", async () => {
      const marker = `86${Math.floor(Math.random() * 1e6)}`;
      const controller = new AbortController();
      const started = (): void => {
        setTimeout(() => controller.abort(new Error("enough")), 200);
      };
      const done = run(`sleep ${marker} & sleep ${marker}`, { signal: controller.signal, io: { started } });
      await assert.rejects(done, /enough/);
      assert.deepEqual(processesWith(marker), []);
    });

    it("adds processes to a running container", async () => {
      const id = "execcontainer";
      const control: { value?: ProcessControl } = {};
      const onControl = (value: ProcessControl): void => {
        control.value = value;
      };
      const first = run("echo shared > /tmp/x; exec sleep 100", {
        id,
        env: ["PATH=/bin", "A=1"],
        io: { onControl },
      });
      const [stdout, stderr] = [new PassThrough(), new PassThrough()];
      const [out, err] = [collect(stdout), collect(stderr)];
      const { signal } = new AbortController();
      const process = {
        args: ["sh", "-c", "cat /tmp/x; echo $A; id -u; echo e >&2; exit 9"],
        env: [],
        cwd: "",
        tty: false,
      };
      const status = await executor.exec(id, {
        process: { ...process, user: "user" },
        io: { stdout, stderr },
        signal,
      });
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual([status.code, out(), err()], [9, "shared\n1\n1000\n", "e\n"]);
      const killed = new AbortController();
      const slow = executor.exec(id, {
        process: { ...process, args: ["sleep", "100"], user: "" },
        io: { started: () => setTimeout(() => killed.abort(), 200) },
        signal: killed.signal,
      });
      await assert.rejects(slow, { name: "AbortError" });
      control.value?.kill(9);
      assert.equal((await first).code, 137);
      const late = executor.exec(id, { process: { ...process, user: "" }, io: {}, signal });
      await assert.rejects(late, /not found/);
    });

    it("mounts an overlay once for all who write to it", async () => {
      const dirs = ["lower", "upper", "work"].map((dir) => join(mkdtempSync(join(base, "ovl-")), dir));
      for (const dir of dirs) mkdirSync(dir);
      const options = [`lowerdir=${dirs[0]}`, `upperdir=${dirs[1]}`, `workdir=${dirs[2]}`];
      const overlay: Mount[] = [{ type: "overlay", source: "overlay", options }];
      const mount: ExecMount = { kind: "snapshot", dest: "/cache", readonly: false, mounts: overlay };
      const waits =
        "for i in 1 2 3 4 5 6 7 8 9; do test -e /cache/other && break; sleep 0.2; done; ls /cache";
      // Removing the mount point of one would detach the mount of the other, were it the same directory.
      mkdirSync(join(root, "cache"));
      await using view = await executor.mountShared(overlay);
      const [a, b] = await Promise.all([
        run("echo a > /cache/one; sleep 0.5; echo a > /cache/other", { mounts: [mount] }),
        run(waits, { mounts: [mount] }),
      ]);
      assert.equal(a.code, 0);
      assert.equal(b.stdout, "one\nother\n");
      assert.deepEqual(readdirSync(view.path).sort(), ["one", "other"]);
    });

    it("takes over what its own process has mounted", async () => {
      const dir = mkdtempSync(join(base, "mounted-"));
      mountAll([{ type: "tmpfs", source: "tmpfs", options: [] }], dir);
      try {
        writeFileSync(join(dir, "seen"), "yes");
        const mount: ExecMount = { kind: "snapshot", dest: "/m", readonly: false, mounts: bindRoot(dir) };
        const { stdout } = await run("cat /m/seen; echo back > /m/out", { mounts: [mount] });
        assert.equal(stdout, "yes");
        assert.equal(readFileSync(join(dir, "out"), "utf8"), "back\n");
        const sub: ExecMount = { ...mount, selector: "seen", readonly: true };
        assert.equal((await run("cat /m; echo x > /m || true", { mounts: [sub] })).stdout, "yes");
        assert.equal(readFileSync(join(dir, "seen"), "utf8"), "yes");
      } finally {
        unmountAll(dir);
      }
    });

    it("refuses ids that aren't plain", async () => {
      for (const id of ["../x", "a/b", "a b", "a\0", "é", "x".repeat(4096)]) {
        await assert.rejects(run("true", { id }), /container id/, id);
      }
    });

    it("leaves nothing in its directory", async () => {
      await run("true");
      const left = readdirSync(join(base, "state")).filter(
        (name) => !/^(run|hosts|resolv(-host)?\.conf)$/.test(name),
      );
      assert.deepEqual(left, []);
    });
  });
}

/** Command lines of the machine's processes that contain a text. */
export function processesWith(text: string): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      return line.includes(text) ? [line] : [];
    } catch {
      return [];
    }
  });
}
