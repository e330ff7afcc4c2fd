import { quoteGo } from "@kiln/formats";
import type { Range } from "@kiln/llb";
import { parseBool, trimSpace } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { DirectiveReader } from "../syntax/directives.ts";
import type { Rule } from "./rules.ts";

/** One finding. */
export interface LintWarning {
  readonly rule: Rule;
  readonly message: string;
  readonly location: readonly Range[];
}

/** Which rules are on. */
export interface LintConfig {
  readonly skipAll: boolean;
  readonly skip: ReadonlySet<string>;
  readonly experimentalAll: boolean;
  readonly experimental: ReadonlySet<string>;
  /** A finding fails the build. */
  readonly returnAsError: boolean;
}

/** All stable rules, as warnings. */
export const DEFAULT_LINT: LintConfig = {
  skipAll: false,
  skip: new Set(),
  experimentalAll: false,
  experimental: new Set(),
  returnAsError: false,
};

/** Reads `skip=A,B|all;error=true;experimental=A|all`. Throws a problem. */
export function parseLintOptions(text: string): LintConfig {
  const trimmed = trimSpace(text);
  if (trimmed === "") return DEFAULT_LINT;
  let config = DEFAULT_LINT;
  const parts = trimmed.split(";");
  if (parts.length > 3) parts.splice(2, parts.length, parts.slice(2).join(";"));
  for (const part of parts) {
    const equals = part.indexOf("=");
    if (equals < 0) throw new Problem(`invalid check option ${quoteGo(part)}`);
    const key = trimSpace(part.slice(0, equals));
    const value = trimSpace(part.slice(equals + 1));
    const names = new Set(value.split(",").map(trimSpace));
    if (key === "skip") {
      config = value === "all" ? { ...config, skipAll: true } : { ...config, skip: names };
    } else if (key === "experimental") {
      config = value === "all" ? { ...config, experimentalAll: true } : { ...config, experimental: names };
    } else if (key === "error") {
      const flag = parseBool(value);
      if (flag === undefined) {
        throw new Problem(
          `failed to parse check option ${quoteGo(part)}: strconv.ParseBool: parsing ${quoteGo(value)}: invalid syntax`,
        );
      }
      config = { ...config, returnAsError: flag };
    } else throw new Problem(`invalid check option ${quoteGo(key)}`);
  }
  return config;
}

/** Reports findings of the rules that are on. */
export class Linter {
  readonly #config: LintConfig;
  readonly #report: ((warning: LintWarning) => void) | undefined;
  readonly #called: Set<string>;

  /** Without `report` nothing is found. */
  constructor(
    config: LintConfig,
    report: ((warning: LintWarning) => void) | undefined,
    called = new Set<string>(),
  ) {
    this.#config = config;
    this.#report = report;
    this.#called = called;
  }

  run(rule: Rule, location: readonly Range[], message: string): void {
    if (this.#report === undefined) return;
    const { skipAll, skip, experimentalAll, experimental } = this.#config;
    const isOn = rule.experimental
      ? experimentalAll || experimental.has(rule.name)
      : !skipAll && !skip.has(rule.name);
    if (!isOn) return;
    this.#called.add(rule.name);
    this.#report({ rule, message, location });
  }

  /** With what a `# check=…` comment above an instruction adds. */
  withComments(comments: readonly string[]): Linter {
    for (const comment of comments) {
      const directive = comment.includes("=") ? new DirectiveReader("").read(comment) : undefined;
      if (directive?.name !== "check") continue;
      try {
        return new Linter(
          merge(this.#config, parseLintOptions(directive.value.split(" ", 1)[0]!)),
          this.#report,
          this.#called,
        );
      } catch (error) {
        if (error instanceof Problem) return this;
        throw error;
      }
    }
    return this;
  }

  /** The problem of a build whose findings are errors. */
  problem(): Problem | undefined {
    if (!this.#config.returnAsError || this.#called.size === 0) return undefined;
    return new Problem(`lint violation found for rules: ${[...this.#called].join(", ")}`);
  }
}

function merge(base: LintConfig, more: LintConfig): LintConfig {
  return {
    skipAll: base.skipAll || more.skipAll,
    skip: base.skip.union(more.skip),
    experimentalAll: base.experimentalAll || more.experimentalAll,
    experimental: base.experimental.union(more.experimental),
    returnAsError: base.returnAsError,
  };
}
