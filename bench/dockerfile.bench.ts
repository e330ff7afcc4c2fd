/**
 * Dockerfiles of many instructions, parsed and compiled to LLB. Prints a table.
 * Run with `node bench/dockerfile.bench.ts [instructions…]`.
 */
import { compileDockerfile, parseDockerfile } from "@kiln/dockerfile";

/** Timed runs of each size, after some that warm up. */
const RUNS = 15;
const WARM_UP_RUNS = 10;

/** A file that looks like those of real projects: every tenth instruction of each kind. */
function makeDockerfile(instructions: number): string {
  const lines = ["ARG V=1", "FROM alpine:3.20 AS base"];
  for (let i = 0; lines.length < instructions; i++) {
    switch (i % 10) {
      case 0:
        lines.push(`ENV KEY_${i % 50}=value-${i} OTHER=$KEY_${(i + 40) % 50}`);
        break;
      case 1:
        lines.push(`COPY --chown=1000:1000 src/file${i}.txt /app/dir${i}/`);
        break;
      case 2:
        lines.push(`WORKDIR /app/dir${i}`);
        break;
      case 3:
        lines.push(`LABEL l${i}="some text ${i}"`);
        break;
      case 4:
        lines.push(`ARG A${i % 30}=$V`);
        break;
      case 9:
        lines.push(i % 100 === 99 ? `FROM base AS s${i}` : `RUN make target-${i} && echo "$OTHER"`);
        break;
      default:
        lines.push(
          `RUN --mount=type=cache,target=/root/.cache apt-get install -y pkg${i} && \\\n  echo ${i} | tee /tmp/x`,
        );
    }
  }
  return `${lines.join("\n")}\n`;
}

async function medianMs(run: () => unknown): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < WARM_UP_RUNS + RUNS; i++) {
    const start = performance.now();
    await run();
    if (i >= WARM_UP_RUNS) times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(RUNS / 2)]!;
}

const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [500, 2000, 10_000];
process.stdout.write("instructions  parse ms  parse and compile ms  µs each\n");
for (const size of sizes) {
  const bytes = new TextEncoder().encode(makeDockerfile(size));
  const parse = await medianMs(() => parseDockerfile(bytes));
  const compile = await medianMs(() => compileDockerfile(bytes, { sessionId: "s" }));
  const cells = [
    String(size).padStart(12),
    parse.toFixed(1).padStart(8),
    compile.toFixed(1).padStart(20),
    ((compile / size) * 1000).toFixed(1).padStart(7),
  ];
  process.stdout.write(`${cells.join("  ")}\n`);
}
