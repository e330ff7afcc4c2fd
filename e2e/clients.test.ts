import assert from "node:assert/strict";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BIN } from "./support/kilnd.ts";
import { killGroup, start } from "./support/run.ts";
import { openTestBed, readText, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("clients");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

interface Client {
  readonly pid: number;
  readonly ended: Promise<number | null>;
  output(): string;
  /** Waits until the output matches. */
  says(pattern: RegExp): Promise<void>;
}

function startClient(args: readonly string[]): Client {
  const child = start(join(BIN, "kiln"), ["build", "--progress=plain", ...args], { env: bed.env() });
  let output = "";
  let waiting: (() => void)[] = [];
  const wake = (): void => {
    for (const resolve of waiting.splice(0)) resolve();
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      wake();
    });
  }
  let isOver = false;
  const ended = new Promise<number | null>((resolve) =>
    child.on("close", (code) => {
      isOver = true;
      waiting = [...waiting];
      wake();
      resolve(code);
    }),
  );
  return {
    pid: child.pid ?? -1,
    ended,
    output: () => output,
    async says(pattern) {
      while (!pattern.test(output)) {
        if (isOver) throw new Error(`never said ${pattern}:\n${output}`);
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
    },
  };
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (let attempt = 0; !holds(); attempt++) {
    assert.ok(attempt < 200, `never came true: ${what}`);
    await sleep(100);
  }
}

const SIMPLE = "FROM busybox\nRUN echo simple\n";

function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(word);
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

test("a step that eight clients want runs once, also when some of them leave", async () => {
  const count = "RUN --mount=type=cache,id=runs,target=/runs";
  const context = bed.context("eight", {
    Dockerfile: `FROM busybox\n${count} echo ran >> /runs/log; echo go; sleep 5; cat /proc/sys/kernel/random/uuid > /stamp\nFROM scratch\nCOPY --from=0 /stamp /\n`,
  });
  const clients = Array.from({ length: 8 }, (_, i) =>
    startClient(["--output", `type=local,dest=${bed.folder}/eight-${i}`, context]),
  );
  await Promise.all(clients.map((client) => client.says(/^#\d+ [\d.]+ go$/m)));
  const [first, second, ...others] = clients as [Client, Client, ...Client[]];
  process.kill(first.pid, "SIGINT");
  killGroup(second.pid);
  assert.equal(await first.ended, 130, first.output());
  assert.notEqual(await second.ended, 0);
  for (const client of others) assert.equal(await client.ended, 0, client.output());
  const stamps = new Set(others.map((_, i) => readText(bed.folder, `eight-${i + 2}`, "stamp")));
  assert.equal(stamps.size, 1);
  const look = bed.context("look", { Dockerfile: `FROM busybox\n${count} wc -l < /runs/log\n` });
  assert.match(await bed.build([look]), /^#\d+ [\d.]+ 1$/m);
});

test("a client that is killed while it sends its context, builds or receives, leaves nothing behind", async () => {
  const upload = bed.context("upload", {
    Dockerfile: "FROM busybox\nCOPY big /big\nRUN echo 31536011; sleep 31536011\n",
  });
  writeFileSync(join(upload, "big"), "");
  truncateSync(join(upload, "big"), 300 << 20);
  const sending = startClient([upload]);
  await sending.says(/transferring context/);
  killGroup(sending.pid);
  await sending.ended;
  truncateSync(join(upload, "big"), 1 << 20);
  const building = startClient([upload]);
  await building.says(/^#\d+ [\d.]+ 31536011$/m);
  killGroup(building.pid);
  await building.ended;
  await eventually("the step is gone", () => processesWith("31536011").length === 0);
  const big = bed.context("receive", {
    Dockerfile: "FROM busybox\nRUN head -c 100000000 /dev/urandom > /big\n",
  });
  await bed.build([big]);
  const out = join(bed.folder, "received.tar");
  writeFileSync(out, "from an earlier build");
  const receiving = startClient(["--output", `type=tar,dest=${out}`, big]);
  await receiving.says(/sending tarball/);
  killGroup(receiving.pid);
  await receiving.ended;
  assert.equal(readFileSync(out, "utf8"), "from an earlier build");
  await bed.build([bed.context("simple", { Dockerfile: SIMPLE })]);
  await eventually("no temporary file", () => readdirSync(join(bed.daemon().root, "tmp")).length === 0);
  await bed.build(["--output", `type=tar,dest=${out}`, big]);
  assert.deepEqual(
    readdirSync(bed.folder).filter((name) => name.startsWith("received.tar")),
    ["received.tar"],
  );
});

test("a client that stops reading holds nobody up, and the daemon stays small", async () => {
  const lines = "RUN i=0; while [ $i -lt 300000 ]; do echo line $i; i=$((i+1)); done; echo the end";
  const context = bed.context("lines", { Dockerfile: `FROM busybox\nRUN echo go\n${lines}\n` });
  const slow = startClient(["--no-cache", context]);
  await slow.says(/go/);
  process.kill(-slow.pid, "SIGSTOP");
  try {
    for (let i = 0; i < 3; i++) {
      await bed.build(["--no-cache", bed.context("simple", { Dockerfile: SIMPLE })]);
    }
    const status = readFileSync(`/proc/${bed.daemon().pid}/status`, "utf8");
    const rssMb = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
    assert.ok(rssMb < 500, `${rssMb} MB`);
  } finally {
    process.kill(-slow.pid, "SIGCONT");
  }
  assert.equal(await slow.ended, 0, slow.output().slice(-2000));
});
