/**
 * `make chaos`: kills the daemon at random moments of a heavy load, again and again, and looks
 * whether anything is left, broken or lost. `e2e/chaos.test.ts` does the same for two rounds.
 */
import { CHAOS_SETTINGS, chaos } from "../e2e/support/chaos.ts";
import { killRunning } from "../e2e/support/run.ts";
import { openTestBed } from "../e2e/support/test-bed.ts";

const rounds = Number(process.argv[2] || 20);
const seed = Number(process.argv[3] || Date.now() % 1_000_000);

let stopped = false;
function stop(): void {
  stopped = true;
  void killRunning();
}
process.on("SIGINT", stop).on("SIGTERM", stop);
console.log(`${rounds} rounds, seed ${seed}`);
await using bed = await openTestBed("chaos", { settings: CHAOS_SETTINGS });
const done = await chaos(bed, {
  rounds,
  seed,
  onRound: ({ killedAfterMs, recoveryMs, steps, stillCached }, index) => {
    console.log(
      `${String(index + 1).padStart(3)}  killed after ${killedAfterMs} ms  back after ${recoveryMs} ms  ${stillCached} of ${steps} steps cached`,
    );
    if (stopped) throw new Error("stopped");
  },
});
const recoveries = done.map((round) => round.recoveryMs).sort((a, b) => a - b);
const sum = (pick: (round: (typeof done)[number]) => number): number =>
  done.reduce((total, round) => total + pick(round), 0);
const lost =
  1 -
  sum((round) => round.stillCached) /
    Math.max(
      1,
      sum((round) => round.steps),
    );
console.log(
  `recovery: median ${recoveries[recoveries.length >> 1]} ms, longest ${recoveries.at(-1)} ms; lost cache ${(100 * lost).toFixed(1)} % (collected, too)`,
);
