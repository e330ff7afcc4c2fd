import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  type ExecMessage,
  type ExecMessageSchema,
  LLBBridge,
  NewContainerRequestSchema,
} from "@kiln/api/gateway";
import { MountType, SecurityMode } from "@kiln/api/pb";
import { BuildError, sleep } from "@kiln/base";
import { createOciExecutor, type OciExecutor, startZygote, type Zygote } from "@kiln/executor";
import { makeBusyboxRoot } from "@kiln/executor/testing";
import { Channel, type ClientCall, duplexPair, Router } from "@kiln/grpc";
import { type ImmutableRef, openStore, type Store } from "@kiln/store";
import { localMount } from "@kiln/sys";
import { createExecParts } from "../ops/exec/exec-parts.ts";
import { NO_ENTITLEMENTS } from "../solve/entitlements.ts";
import { readContainerDir, readContainerFile, statContainerFile } from "./container-files.ts";
import { GatewayContainers } from "./gateway-containers.ts";
import { execProcess } from "./gateway-exec.ts";

type Message = MessageInitShape<typeof ExecMessageSchema>;
type Call = ClientCall<ExecMessage, Message>;
const NO_SIGNAL = new AbortController().signal;

/** What a client sees of one process. */
interface Seen {
  readonly order: string[];
  stdout: string;
  code: number | undefined;
  error: string;
}

describe("containers of a gateway", { timeout: 120_000 }, () => {
  let dir: string;
  let zygote: Zygote;
  let executor: OciExecutor;
  let store: Store;
  let base: ImmutableRef;
  let containers: GatewayContainers;
  let count = 0;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "kiln-gateway-"));
    zygote = startZygote();
    executor = await createOciExecutor({ root: join(dir, "executor"), zygote });
    store = await openStore({ root: join(dir, "store"), fetchBlob: () => Promise.reject(new Error("none")) });
    const rootfs = join(dir, "rootfs");
    mkdirSync(rootfs);
    makeBusyboxRoot(rootfs);
    const tree = await store.refs.newMutable(undefined, { description: "test" });
    {
      await using mountable = await tree.mount(false, { signal: NO_SIGNAL });
      using mounted = localMount(mountable.mounts);
      cpSync(rootfs, mounted.path, { recursive: true, verbatimSymlinks: true });
    }
    base = await tree.commit();
    containers = openContainers();
  });

  after(async () => {
    await containers.close();
    // Nothing is left: no container, no tree in use but the base.
    assert.deepEqual(
      readdirSync(join(dir, "executor")).filter((name) => existsSync(join(dir, "executor", name, "cgroup"))),
      [],
    );
    const used = (await store.refs.diskUsage()).filter((record) => record.inUse);
    assert.deepEqual(
      used.map(({ id }) => id),
      [base.id],
    );
    await base.release();
    await executor[Symbol.asyncDispose]();
    await zygote[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(dir), "a mount is left");
    rmSync(dir, { recursive: true });
  });

  function openContainers(): GatewayContainers {
    const parts = createExecParts({
      refs: store.refs,
      env: {},
      clients: {
        secret: async (id) => {
          if (id === "token") return Buffer.from("s3cret");
          throw new BuildError("not_found", `secret ${id}: not found`);
        },
        sshSocket: async () => undefined,
      },
    });
    const { cacheMounts, clients } = parts;
    return new GatewayContainers(
      {
        mounts: { refs: store.refs, cacheMounts, clients },
        executor,
        sessions: { ids: () => [] },
        granted: () => NO_ENTITLEMENTS,
        proxy: () => undefined,
      },
      async (id) => {
        if (id === "base") return base;
        throw new BuildError("not_found", `no such ref: ${id}, all []`);
      },
    );
  }

  async function newContainer(rest: object = {}, more: object[] = []): Promise<string> {
    const ContainerID = `c${count++}`;
    const Mounts = [{ dest: "/", resultID: "base" }, ...more];
    await containers.create(
      create(NewContainerRequestSchema, { ContainerID, Mounts, ...rest } as never),
      NO_SIGNAL,
    );
    return ContainerID;
  }

  async function withStream<T>(use: (call: Call) => Promise<T>): Promise<T> {
    const [client, server] = duplexPair();
    const router = new Router().add(LLBBridge, { execProcess: (call) => execProcess(containers, call) });
    router.accept(server);
    await using channel = Channel.over(client);
    await using call = await channel.call(LLBBridge.method.execProcess);
    try {
      return await use(call);
    } finally {
      await router.close({ timeoutMs: 0 });
    }
  }

  const start = (id: string, container: string, args: string[], rest: object = {}): Message => ({
    ProcessID: id,
    Input: {
      case: "Init",
      value: { ContainerID: container, Meta: { args, env: [], cwd: "/" }, Fds: [0, 1, 2], ...rest },
    },
  });
  const shell = (script: string): string[] => ["sh", "-c", script];
  const input = (id: string, data: string | Uint8Array, EOF = false): Message => ({
    ProcessID: id,
    Input: { case: "File", value: { Fd: 0, Data: Buffer.from(data as string), EOF } },
  });

  /** Reads until `id` is done, closing its input once it has ended. */
  async function follow(call: Call, id: string): Promise<Seen> {
    const seen: Seen = { order: [], stdout: "", code: undefined, error: "" };
    for await (const { ProcessID, Input } of call) {
      if (ProcessID !== id) continue;
      const label =
        Input.case === "File" ? `File${Input.value.EOF ? "EOF" : ""}${Input.value.Fd}` : Input.case;
      if (seen.order.at(-1) !== label) seen.order.push(label ?? "");
      if (Input.case === "File" && Input.value.Fd === 1)
        seen.stdout += Buffer.from(Input.value.Data).toString();
      if (Input.case === "Exit") {
        seen.code = Input.value.Code;
        seen.error = Input.value.Error?.message ?? "";
        await call.send(input(id, "", true));
      }
      if (Input.case === "Done") return seen;
    }
    return seen;
  }

  async function run(container: string, args: string[], rest: object = {}): Promise<Seen> {
    return await withStream(async (call) => {
      await call.send(start("p", container, args, rest));
      return await follow(call, "p");
    });
  }

  async function refused(...messages: Message[]): Promise<BuildError> {
    return await withStream(async (call) => {
      for (const message of messages) await call.send(message);
      for (;;) {
        try {
          if ((await call.receive()) === undefined) throw new Error("not refused");
        } catch (error) {
          return error as BuildError;
        }
      }
    });
  }

  it("tells of a process in BuildKit's order, with its code", async () => {
    const id = await newContainer();
    const seen = await run(id, shell("echo out; exit 7"));
    assert.deepEqual(seen.order, ["Started", "File1", "Exit", "FileEOF1", "FileEOF2", "Done"]);
    assert.equal(seen.stdout, "out\n");
    assert.equal(seen.code, 7);
    assert.equal(seen.error, "exit code: 7");
    await assert.rejects(containers.release(id), /exit code: 7/);
  });

  it("carries input, and several processes in one container", async () => {
    const id = await newContainer();
    await withStream(async (call) => {
      await call.send(start("first", id, shell("cat > /shared; sleep 60")));
      await call.send(input("first", "from the first", true));
      await call.send(start("second", id, shell("while ! [ -s /shared ]; do sleep 0.05; done; cat /shared")));
      assert.equal((await follow(call, "second")).stdout, "from the first");
    });
    await assert.rejects(containers.release(id), /context canceled/);
  });

  it("gives a process a terminal of the client's size, and signals", async () => {
    const id = await newContainer();
    const seen = await withStream(async (call) => {
      const script = "trap 'stty size; exit 9' USR1; echo ready; while true; do sleep 0.05; done";
      await call.send(start("p", id, shell(script), { Tty: true, Fds: [0, 1] }));
      await call.send({ ProcessID: "p", Input: { case: "Resize", value: { Rows: 33, Cols: 99 } } });
      await sleep(1500);
      await call.send({ ProcessID: "p", Input: { case: "Signal", value: { Name: "USR1" } } });
      return await follow(call, "p");
    });
    assert.match(seen.stdout, /33 99/);
    assert.equal(seen.code, 9);
    await assert.rejects(containers.release(id));
  });

  it("gives secrets, a search path and a host name", async () => {
    const id = await newContainer({ hostname: "here" });
    const secretenv = [{ ID: "token", name: "T" }];
    const seen = await run(id, shell('echo "$T $PATH $(hostname)"'), { secretenv });
    assert.match(seen.stdout, /^s3cret \/usr\/local\/sbin:.* here\n$/);
    await containers.release(id);
  });

  it("shows files, as they are, without leaving the tree", async () => {
    const id = await newContainer({}, [
      { dest: "/s", resultID: "" },
      { dest: "/t", mountType: MountType.TMPFS },
    ]);
    await run(
      id,
      shell("echo text > /f; ln -s /f /abs; ln -s f /rel; ln -s /etc/shadow /s/out; mknod /pipe p"),
    );
    const container = containers.get(id, 0);
    const root = await container.mountedRoot(0);
    assert.equal(Buffer.from(readContainerFile(root, "/rel")).toString(), "text\n");
    assert.equal(statContainerFile(root, "/rel").size, 5n);
    assert.equal(statContainerFile(root, "/abs").linkname, "/f");
    assert.throws(() => readContainerFile(root, "/pipe"), /not a regular file/);
    assert.throws(() => readContainerFile(root, "relative"), /relative to/);
    assert.ok(readContainerDir(root, "/", "*").some(({ path }) => path === "pipe"));
    const scratch = await container.mountedRoot(1);
    assert.throws(() => readContainerFile(scratch, "/out"), /open \/out: no such file/);
    await assert.rejects(container.mountedRoot(2), /mountable 2 not found/);
    await assert.rejects(container.mountedRoot(9), /out of bounds \(3 available\)/);
    await containers.release(id);
  });

  it("refuses what wasn't granted as the end of the process", async () => {
    const id = await newContainer();
    const seen = await run(id, ["true"], { Security: SecurityMode.INSECURE });
    assert.equal(seen.code, 255);
    assert.equal(seen.error, "security.insecure is not allowed");
    const host = await newContainer({ Network: 1 });
    assert.equal((await run(host, ["true"])).error, "network.host is not allowed");
    for (const one of [id, host]) await assert.rejects(containers.release(one), /is not allowed/);
  });

  it("refuses containers that make no sense", async () => {
    const make = (rest: object) =>
      containers.create(create(NewContainerRequestSchema, { ContainerID: "x", ...rest } as never), NO_SIGNAL);
    await assert.rejects(make({}), /root mount is required/);
    await assert.rejects(
      make({ Mounts: [{ dest: "/", resultID: "nope" }] }),
      /return reference nope not found/,
    );
    await assert.rejects(
      make({ Mounts: [{ dest: "/", mountType: MountType.TMPFS }] }),
      /invalid mount type TMPFS/,
    );
    const root = { dest: "/", resultID: "base" };
    await assert.rejects(
      make({ Mounts: [root, { dest: "/x", mountType: MountType.SSH }] }),
      /requires options/,
    );
    await assert.rejects(
      make({ Mounts: [root], extraHosts: [{ Host: "h", IP: "no" }] }),
      /failed to parse IP no/,
    );
    await assert.rejects(containers.release("x"), /container details for x not found/);
    const id = await newContainer();
    await assert.rejects(
      containers.create(
        create(NewContainerRequestSchema, { ContainerID: id, Mounts: [root] } as never),
        NO_SIGNAL,
      ),
      /already exists/,
    );
    await containers.release(id);
  });

  it("refuses messages that make no sense, at once", async () => {
    const id = await newContainer();
    const unknown = { ProcessID: "no" };
    assert.equal((await refused(start("", id, ["true"]))).message, "ProcessID required");
    assert.equal((await refused(start("p", "gone", ["true"]))).code, "not_found");
    assert.equal((await refused({ ...unknown, Input: { case: "Resize", value: {} } })).code, "not_found");
    assert.equal(
      (await refused({ ...unknown, Input: { case: "Signal", value: { Name: "HUP" } } })).code,
      "not_found",
    );
    assert.equal((await refused(input("no", "x"))).message, 'IO for process "no" not found');
    const sleeper = start("p", id, ["sleep", "60"], { Fds: [1] });
    assert.equal((await refused(sleeper, input("p", "x"))).code, "out_of_range");
    const other = start("p", id, ["sleep", "60"]);
    assert.equal((await refused(other, other)).code, "already_exists");
    const third = start("q", id, ["sleep", "60"]);
    assert.match(
      (await refused(third, { ProcessID: "q", Input: { case: "Signal", value: { Name: "SIGHUP" } } }))
        .message,
      /Unknown signal SIGHUP/,
    );
    const secretenv = [{ ID: "nope", name: "N" }];
    assert.match((await refused(start("r", id, ["true"], { secretenv }))).message, /secret nope: not found/);
    await assert.rejects(containers.release(id), /context canceled/);
  });

  it("survives a flood of input that nobody reads, and a client that leaves", async () => {
    const id = await newContainer();
    await withStream(async (call) => {
      await call.send(start("p", id, ["sleep", "60"]));
      const flood = (async () => {
        for (let i = 0; i < 400; i++) await call.send(input("p", Buffer.alloc(64 << 10)));
      })().catch(() => "stopped");
      await Promise.race([flood, sleep(500)]);
      call.cancel();
      await flood;
    });
    await assert.rejects(containers.release(id), /context canceled/);
  });

  it("ends when a container is released while its output isn't taken", async () => {
    const id = await newContainer();
    await withStream(async (call) => {
      await call.send(start("p", id, shell("yes > /dev/stdout")));
      await sleep(300);
      await assert.rejects(containers.release(id), /context canceled/);
      const seen = await follow(call, "p");
      assert.equal(seen.code, 137);
      assert.equal(seen.error, "exit code: 137: context canceled");
    });
    await assert.rejects(
      withStream(async (call) => {
        await call.send(start("p", id, ["true"]));
        await follow(call, "p");
      }),
      /previously released or not created/,
    );
  });

  it("takes nothing more once it is closed", async () => {
    const own = openContainers();
    await own.close();
    const request = create(NewContainerRequestSchema, {
      ContainerID: "late",
      Mounts: [{ dest: "/", resultID: "base" }],
    } as never);
    await assert.rejects(own.create(request, NO_SIGNAL), /gateway forwarder is closing/);
  });
});
