import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { compareStrings, quote, sortedKeys } from "@kiln/hcl";
import { fail, parseInteger } from "../problem.ts";
import { InvalidTemplateError, type Lookup, substitute } from "./template.ts";
import { pathMatches, pathText, type Tree, type TreeMap, type TreePath } from "./tree.ts";

type Cast = (text: string) => Tree;

/** A YAML 1.1 bool; files use these in texts. */
export function castBool(text: string): boolean {
  const lower = text.toLowerCase();
  if (["true", "y", "yes", "on"].includes(lower)) return true;
  return ["false", "n", "no", "off"].includes(lower) ? false : fail(`invalid boolean: ${text}`);
}

function castWhole(from: string): Cast {
  return (text) => {
    const value = parseInteger(text);
    return value === undefined
      ? fail(`strconv.${from}: parsing ${quote(text)}: invalid syntax`)
      : BigInt(value);
  };
}

function castFloat(text: string): number {
  return /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text)
    ? Number(text)
    : fail(`strconv.ParseFloat: parsing ${quote(text)}: invalid syntax`);
}

const int = castWhole("Atoi");
const int64 = castWhole("ParseInt");

const CASTS: readonly (readonly [cast: Cast, ...paths: readonly string[]])[] = [
  [
    int64,
    ...[
      "cpu_count",
      "cpu_period",
      "cpu_quota",
      "cpu_rt_period",
      "cpu_rt_runtime",
      "cpu_shares",
      "oom_score_adj",
      "pids_limit",
    ].map((name) => `services.*.${name}`),
  ],
  [
    castFloat,
    "services.*.cpu_percent",
    "services.*.cpus",
    "services.*.deploy.update_config.max_failure_ratio",
    "services.*.deploy.rollback_config.max_failure_ratio",
  ],
  [
    castBool,
    ...[
      "init",
      "depends_on.*.required",
      "depends_on.*.restart",
      "healthcheck.disable",
      "oom_kill_disable",
      "privileged",
    ].map((name) => `services.*.${name}`),
    ...["read_only", "stdin_open", "tty", "volumes.[].read_only", "volumes.[].volume.nocopy"].map(
      (name) => `services.*.${name}`,
    ),
    ...["external", "internal", "attachable", "enable_ipv4", "enable_ipv6"].map(
      (name) => `networks.*.${name}`,
    ),
    ...["volumes", "secrets", "configs"].map((name) => `${name}.*.external`),
  ],
  [
    int,
    ...["deploy.replicas", "deploy.update_config.parallelism", "deploy.rollback_config.parallelism"].map(
      (name) => `services.*.${name}`,
    ),
    ...["deploy.restart_policy.max_attempts", "deploy.placement.max_replicas_per_node"].map(
      (name) => `services.*.${name}`,
    ),
    ...[
      "healthcheck.retries",
      "ports.[].target",
      "scale",
      "ulimits.*",
      "ulimits.*.hard",
      "ulimits.*.soft",
    ].map((name) => `services.*.${name}`),
  ],
];

const PATTERNS = CASTS.flatMap(([cast, ...paths]) =>
  paths.map((path) => ({ cast, pattern: path.split(".") })),
);

/** Puts variables into all texts of a file. All problems are told at once, in the order of their places. */
export function interpolate(file: TreeMap, lookup: Lookup): TreeMap {
  const problems: { readonly path: TreePath; readonly message: string }[] = [];
  const text = (value: string, path: TreePath): Tree => {
    try {
      const out = substitute(value, lookup);
      const cast = PATTERNS.find(({ pattern }) => pathMatches(path, pattern))?.cast;
      return cast === undefined ? out : casted(cast, out);
    } catch (error) {
      problems.push({ path, message: problemAt(path, error) });
      return value;
    }
  };
  const walk = (value: Tree, path: TreePath): Tree => {
    if (typeof value === "string") return text(value, path);
    if (Array.isArray(value)) return value.map((item) => walk(item, [...path, "[]"]));
    if (!(value instanceof Map)) return value;
    return new Map(sortedKeys(value).map((key) => [key, walk(value.get(key)!, [...path, key])]));
  };
  const out = walk(file, []) as TreeMap;
  if (problems.length > 0) {
    const ordered = problems.sort((a, b) => comparePaths(a.path, b.path));
    fail(ordered.map(({ message }) => message).join("\n"));
  }
  return out;
}

function comparePaths(a: TreePath, b: TreePath): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = compareStrings(a[i]!, b[i]!);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function casted(cast: Cast, text: string): Tree {
  try {
    return cast(text);
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to cast to expected type: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function problemAt(path: TreePath, error: unknown): string {
  if (error instanceof InvalidTemplateError) {
    return `invalid interpolation format for ${pathText(path)}.\nYou may need to escape any $ with another $.\n${error.template}`;
  }
  if (!isBuildError(error)) throw error;
  return `error while interpolating ${pathText(path)}: ${errorMessage(error)}`;
}
