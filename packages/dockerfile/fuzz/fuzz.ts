// Tries random Dockerfiles: node fuzz.ts [CASES [SEED [THREADS]]]
import { Worker } from "node:worker_threads";
import type { FuzzJob, FuzzReport } from "./fuzz-worker.ts";

const SHOWN_EVERY_MS = 1000;

const cases = Number(process.argv[2] ?? 10_000_000);
const seed = Number(process.argv[3] ?? Date.now() & 0x7fffffff);
const threads = Number(process.argv[4] ?? 2);
const start = performance.now();
const done: number[] = Array.from({ length: threads }, () => 0);

function show(end: string): void {
  const sum = done.reduce((a, b) => a + b, 0);
  const perSecond = (sum / (performance.now() - start)) * 1000;
  process.stdout.write(`\r${sum} cases, ${perSecond.toFixed(0)} a second${end}`);
}

function run(thread: number): Promise<FuzzReport> {
  const each = Math.floor(cases / threads);
  const first = thread * each;
  const job: FuzzJob = { seed, first, cases: thread === threads - 1 ? cases - first : each };
  const worker = new Worker(new URL("./fuzz-worker.ts", import.meta.url), { workerData: job });
  return new Promise((resolve, reject) => {
    worker.on("error", reject);
    worker.on("message", (report: FuzzReport) => {
      done[thread] = report.done;
      if (report.failure === undefined && report.done < job.cases) return;
      resolve(report);
    });
  });
}

const ticker = setInterval(() => show(""), SHOWN_EVERY_MS);
const reports = await Promise.all(done.map((_, thread) => run(thread)));
clearInterval(ticker);
show("\n");
const failures = reports.flatMap(({ failure }) => failure ?? []);
for (const { text, at, message } of failures) {
  process.stdout.write(`case ${at} of seed ${seed}: ${message}\n${JSON.stringify(text)}\n`);
}
process.stdout.write(`seed ${seed}: ${failures.length === 0 ? "nothing" : failures.length} found\n`);
process.exit(failures.length === 0 ? 0 : 1);
