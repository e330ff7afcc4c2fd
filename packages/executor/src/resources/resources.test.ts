import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { type CgroupSample, sampleCgroup } from "./cgroup-sample.ts";
import { ResourceMonitor } from "./resource-monitor.ts";

const NOW = Date.parse("2026-01-02T03:04:05Z");
const PRESSURE =
  "some avg10=1.50 avg60=0.10 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";

function sample(files: Readonly<Record<string, string>>): CgroupSample | undefined {
  return sampleCgroup("/buildkit/x", { read: (path) => files[path], nowMs: NOW });
}

test("a cgroup of version 2", () => {
  const dir = "/sys/fs/cgroup/buildkit/x";
  const found = sample({
    [`${dir}/cpu.stat`]: "usage_usec 1234567\nuser_usec 123456\nsystem_usec 123456\nnr_periods 123\nodd\n",
    [`${dir}/cpu.pressure`]: PRESSURE,
    [`${dir}/memory.stat`]: "anon 24576\nfile 12791808\npagetables 262144\npgfault 77\n",
    [`${dir}/memory.events`]: "low 4\nhigh 3\nmax 0\noom 1\noom_kill 5\n",
    [`${dir}/memory.peak`]: "123456\n",
    [`${dir}/memory.swap.current`]: "987\n",
    [`${dir}/io.stat`]:
      "8:0 rbytes=1024 wbytes=2048 dbytes=4096 rios=16 wios=32 dios=64\n8:1 rbytes=512 wbytes=1\n",
    [`${dir}/pids.current`]: "7\n",
  });
  assert.deepEqual(JSON.parse(JSON.stringify(found)), {
    timestamp: "2026-01-02T03:04:05.000Z",
    cpuStat: {
      usageNanos: 1_234_567_000,
      userNanos: 123_456_000,
      systemNanos: 123_456_000,
      nrPeriods: 123,
      pressure: {
        some: { avg10: 1.5, avg60: 0.1, avg300: 0, total: 12 },
        full: { avg10: 0, avg60: 0, avg300: 0, total: 3 },
      },
    },
    memoryStat: {
      swapBytes: 987,
      anon: 24576,
      file: 12791808,
      pageTables: 262144,
      pgfault: 77,
      peak: 123456,
      lowEvents: 4,
      highEvents: 3,
      oomEvents: 1,
      oomKillEvents: 5,
    },
    ioStat: {
      readBytes: 1536,
      writeBytes: 2049,
      discardBytes: 4096,
      readIOs: 16,
      writeIOs: 32,
      discardIOs: 64,
    },
    pidsStat: { current: 7 },
  });
});

test("cgroups of version 1, with an empty tree of version 2 beside them", () => {
  const dir = (tree: string): string => `/sys/fs/cgroup/${tree}/buildkit/x`;
  const found = sample({
    [`${dir("unified")}/cgroup.procs`]: "1\n",
    [`${dir("cpuacct")}/cpuacct.usage`]: "5000000\n",
    [`${dir("cpuacct")}/cpuacct.stat`]: "user 3\nsystem 2\n",
    [`${dir("cpu")}/cpu.stat`]: "nr_periods 0\nnr_throttled 0\nthrottled_time 9\n",
    [`${dir("memory")}/memory.stat`]: "cache 10\nrss 20\nmapped_file 5\n",
    [`${dir("memory")}/memory.max_usage_in_bytes`]: "40\n",
    [`${dir("blkio")}/blkio.throttle.io_service_bytes`]:
      "8:0 Read 100\n8:0 Write 7\n8:16 Read 1\nTotal 108\n",
    [`${dir("pids")}/pids.current`]: "2\n",
  });
  assert.deepEqual(JSON.parse(JSON.stringify(found)), {
    timestamp: "2026-01-02T03:04:05.000Z",
    cpuStat: {
      usageNanos: 5_000_000,
      userNanos: 30_000_000,
      systemNanos: 20_000_000,
      nrPeriods: 0,
      nrThrottled: 0,
      throttledNanos: 9,
    },
    memoryStat: { anon: 20, file: 10, fileMapped: 5, peak: 40 },
    ioStat: { readBytes: 101, writeBytes: 7, readIOs: 0, writeIOs: 0 },
    pidsStat: { current: 2 },
  });
});

test("nothing is known of a cgroup that isn't there", () => {
  assert.equal(sample({}), undefined);
  assert.equal(sampleCgroup("/nowhere/at/all"), undefined);
});

test("a monitor looks after two seconds, and half as often after each ten samples", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  let taken = 0;
  let stat = "cpu  100 0 50 1000 0 0 0 0 0 0\n";
  const one = (): CgroupSample => ({ timestamp: String(++taken) });
  using monitor = new ResourceMonitor({ sample: one, stat: () => stat });
  mock.timers.tick(1999);
  assert.equal(taken, 0);
  mock.timers.tick(1);
  assert.equal(taken, 1);
  for (let second = 0; second < 18; second++) mock.timers.tick(1000);
  assert.equal(taken, 10);
  mock.timers.tick(3999);
  assert.equal(taken, 10);
  mock.timers.tick(1);
  assert.equal(taken, 11);
  stat = "cpu  350 0 75 1000 0 0 0 0 0 0\n";
  const usage = monitor.end({ timestamp: "last" });
  assert.equal(usage?.samples.length, 12);
  assert.equal(usage?.samples.at(-1)?.timestamp, "last");
  assert.deepEqual([usage?.sysCPUStat?.user, usage?.sysCPUStat?.system], [2.5, 0.25]);
  mock.timers.tick(10_000);
  assert.equal(taken, 11);
});

test("what was too short for a sample, and couldn't be looked at afterwards, has none", () => {
  using monitor = new ResourceMonitor({ sample: () => undefined, stat: () => "" });
  assert.equal(monitor.end(undefined), undefined);
});
