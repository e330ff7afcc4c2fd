import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { BuildHistoryRecord } from "@kiln/api/control";
import { codeOfNumber, goCodeName } from "@kiln/grpc";

type Labels = Readonly<Record<string, string>>;

/** Counts finished builds, under the names that buildkitd's instruments have in Prometheus. */
export class BuildMetrics {
  readonly #builds = new Map<string, number>();
  readonly #steps = new Map<string, number>();
  readonly #durations = new Map<string, { sum: number; count: number }>();

  /** Takes a complete record. */
  add(record: BuildHistoryRecord): void {
    const { error } = record;
    const status = error === undefined ? "success" : "failure";
    const code = error === undefined ? {} : { error_code: goCodeName(codeOfNumber(error.code)) };
    increase(this.#builds, { ...code, status }, 1);
    const steps = {
      completed: record.numCompletedSteps,
      cached: record.numCachedSteps,
      total: record.numTotalSteps,
      warnings: record.numWarnings,
    };
    for (const [kind, count] of Object.entries(steps)) increase(this.#steps, { kind }, count);
    if (record.CreatedAt === undefined || record.CompletedAt === undefined) return;
    const key = labelText({ status });
    const known = this.#durations.get(key) ?? { sum: 0, count: 0 };
    known.sum += Math.max(0, timestampMs(record.CompletedAt) - timestampMs(record.CreatedAt)) / 1000;
    known.count++;
    this.#durations.set(key, known);
  }

  /** In Prometheus' text format. */
  text(): string {
    return [
      ...family("buildkit_builds_total", "counter", "Number of builds completed.", this.#builds),
      ...family("buildkit_builds_steps_total", "counter", "Number of build steps, by kind.", this.#steps),
      "# HELP buildkit_build_duration_seconds Duration of builds.",
      "# TYPE buildkit_build_duration_seconds histogram",
      ...[...this.#durations].flatMap(([labels, { count, sum }]) => [
        `buildkit_build_duration_seconds_bucket{${labels},le="+Inf"} ${count}`,
        `buildkit_build_duration_seconds_sum{${labels}} ${sum}`,
        `buildkit_build_duration_seconds_count{${labels}} ${count}`,
      ]),
    ]
      .map((line) => `${line}\n`)
      .join("");
  }
}

/** One family of values that need no labels. */
export function gauge(name: string, help: string, value: number): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${value}\n`;
}

function family(name: string, type: string, help: string, values: ReadonlyMap<string, number>): string[] {
  return [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} ${type}`,
    ...[...values].map(([labels, value]) => `${name}{${labels}} ${value}`),
  ];
}

function increase(values: Map<string, number>, labels: Labels, by: number): void {
  const key = labelText(labels);
  values.set(key, (values.get(key) ?? 0) + by);
}

function labelText(labels: Labels): string {
  return Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(",");
}
