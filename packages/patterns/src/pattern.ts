import { matchSteps, parseRegexp, type Step } from "./automaton.ts";

/** How a pattern is compared; decided once. */
export type CompiledPattern =
  | { readonly kind: "exact"; readonly text: string }
  | { readonly kind: "prefix"; readonly prefix: string }
  | { readonly kind: "suffix"; readonly suffix: string }
  | { readonly kind: "steps"; readonly alternatives: readonly (readonly Step[])[] };

/** moby means to escape `|`, `{` and `}`, too, but its table of bits has no room for them. */
const ESCAPED = new Set(".+()$");

/**
 * Compiles a cleaned pattern by the rules of moby/patternmatcher 0.6, quirks included: `**` as prefix,
 * suffix or in the middle, `*`, `?`, classes, and `\` in front of anything.
 */
export function compilePattern(pattern: string): CompiledPattern {
  let regexp = "";
  let kind: "exact" | "prefix" | "suffix" | "regexp" = "exact";
  const chars = Array.from(pattern);
  let at = 0;
  for (let round = 0; at < chars.length; round++) {
    const c = chars[at++]!;
    if (c === "*" && chars[at] === "*") {
      at++;
      if (chars[at] === "/") at++;
      if (at >= chars.length) {
        if (kind === "exact") kind = "prefix";
        else {
          regexp += ".*";
          kind = "regexp";
        }
      } else {
        regexp += "(.*/)?";
        kind = "regexp";
      }
      if (round === 0) kind = "suffix";
    } else if (c === "*") {
      regexp += "[^/]*";
      kind = "regexp";
    } else if (c === "?") {
      regexp += "[^/]";
      kind = "regexp";
    } else if (ESCAPED.has(c)) regexp += `\\${c}`;
    else if (c === "\\") {
      if (at < chars.length) {
        regexp += `\\${chars[at++]!}`;
        kind = "regexp";
      } else regexp += "\\";
    } else {
      regexp += c;
      if (c === "[" || c === "]") kind = "regexp";
    }
  }
  switch (kind) {
    case "exact":
      return { kind, text: pattern };
    case "prefix":
      return { kind, prefix: pattern.slice(0, -2) };
    case "suffix":
      return { kind, suffix: pattern.slice(2) };
    case "regexp":
      return { kind: "steps", alternatives: parseRegexp(regexp) };
  }
}

/** Compares a path with one compiled pattern. */
export function matchesPattern(pattern: CompiledPattern, path: string): boolean {
  switch (pattern.kind) {
    case "exact":
      return path === pattern.text;
    case "prefix":
      return path.startsWith(pattern.prefix);
    case "suffix":
      return (
        path.endsWith(pattern.suffix) || (pattern.suffix.startsWith("/") && path === pattern.suffix.slice(1))
      );
    case "steps":
      return pattern.alternatives.some((steps) => matchSteps(steps, path));
  }
}
