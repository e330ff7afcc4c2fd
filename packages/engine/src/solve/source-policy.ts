import type { SourceOp } from "@kiln/api/pb";
import {
  AttrMatch,
  MatchType,
  type Policy,
  PolicyAction,
  type Rule,
  type Selector,
} from "@kiln/api/sourcepolicy";
import { BuildError } from "@kiln/base";
import { expandTemplate, matchRegex, matchWildcard } from "./policy-match.ts";

/** Conversions of one source before a policy is taken to go round in circles. */
const MAX_CONVERSIONS = 20;

/** @throws BuildError `invalid_argument` for a policy with holes (buildkit.md §4.5). */
export function validatePolicy(policy: Policy): void {
  for (const rule of policy.rules) {
    if (rule.selector === undefined) throw invalid("invalid nil selector in policy");
  }
}

/**
 * Applies static source policies to a source op, which is changed in place by `CONVERT` rules
 * (buildkit.md §10.3).
 *
 * @returns whether it was changed.
 * @throws BuildError `permission_denied` when it is denied.
 */
export function applyPolicies(policies: readonly Policy[], source: SourceOp): boolean {
  let changed = false;
  for (let round = 0; ; round++) {
    if (round > MAX_CONVERSIONS) {
      throw invalid("too many mutations on a single source: too many operations");
    }
    if (!policies.some((policy) => applyPolicy(policy, source))) return changed;
    changed = true;
  }
}

function applyPolicy(policy: Policy, source: SourceOp): boolean {
  let denied = false;
  for (const rule of policy.rules) {
    const selector = rule.selector as Selector;
    const groups = matchSelector(selector, source);
    if (groups === undefined) continue;
    switch (rule.action) {
      case PolicyAction.ALLOW:
        denied = false;
        break;
      case PolicyAction.DENY:
        denied = true;
        break;
      case PolicyAction.CONVERT:
        if (convert(rule, groups, source)) return true;
        break;
      default:
        throw invalid(
          `source policy: rule ${rule.action} ${selector.identifier}: unknown type ${JSON.stringify(source.identifier)}`,
        );
    }
  }
  if (denied) {
    throw new BuildError(
      "permission_denied",
      `source ${JSON.stringify(source.identifier)} denied by policy: source denied by policy`,
    );
  }
  return false;
}

/** The groups that the selector matched with; undefined when it doesn't apply. */
function matchSelector(selector: Selector, source: SourceOp): readonly (string | undefined)[] | undefined {
  for (const { key, value, condition } of selector.constraints) {
    const have = Object.hasOwn(source.attrs, key) ? (source.attrs[key] as string) : "";
    if (!constraintHolds(condition, have, value)) return undefined;
  }
  const { identifier } = selector;
  if (identifier === source.identifier) return [identifier];
  switch (selector.matchType) {
    case MatchType.EXACT:
      return undefined;
    case MatchType.REGEX:
      return matchRegex(identifier, source.identifier);
    case MatchType.WILDCARD:
      return matchWildcard(identifier, source.identifier);
    default:
      throw invalid(`error matching source policy: unknown match type: ${selector.matchType}`);
  }
}

function constraintHolds(condition: AttrMatch, have: string, want: string): boolean {
  switch (condition) {
    case AttrMatch.EQUAL:
      return have === want;
    case AttrMatch.NOTEQUAL:
      return have !== want;
    case AttrMatch.MATCHES:
      return matchRegex(want, have) !== undefined;
    default:
      throw invalid(`error matching source policy: unknown attr condition: ${condition}`);
  }
}

function convert(rule: Rule, groups: readonly (string | undefined)[], source: SourceOp): boolean {
  const { updates } = rule;
  if (updates === undefined) {
    throw invalid("error mutating source policy: missing destination for convert rule");
  }
  const template = updates.identifier === "" ? (rule.selector?.identifier ?? "") : updates.identifier;
  const identifier =
    rule.selector?.matchType === MatchType.EXACT ? template : expandTemplate(template, groups);
  let changed = false;
  if (identifier !== "" && identifier !== source.identifier) {
    source.identifier = identifier;
    changed = true;
  }
  for (const [key, value] of Object.entries(updates.attrs)) {
    if (Object.hasOwn(source.attrs, key) && source.attrs[key] === value) continue;
    Object.defineProperty(source.attrs, key, { value, enumerable: true, configurable: true, writable: true });
    changed = true;
  }
  return changed;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
