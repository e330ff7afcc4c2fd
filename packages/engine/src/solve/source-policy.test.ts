import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { SourceOpSchema } from "@kiln/api/pb";
import { AttrMatch, MatchType, type Policy, PolicyAction, PolicySchema } from "@kiln/api/sourcepolicy";
import { expandTemplate, matchRegex, matchWildcard } from "./policy-match.ts";
import { applyPolicies, validatePolicy } from "./source-policy.ts";

const { ALLOW, CONVERT, DENY } = PolicyAction;

function policy(...rules: NonNullable<MessageInitShape<typeof PolicySchema>["rules"]>): Policy {
  return create(PolicySchema, { rules });
}

function source(identifier: string, attrs: Record<string, string> = {}) {
  return create(SourceOpSchema, { identifier, attrs });
}

function rule(action: PolicyAction, identifier: string, to?: string, attrs: Record<string, string> = {}) {
  return {
    action,
    selector: { identifier },
    ...(to === undefined ? {} : { updates: { identifier: to, attrs } }),
  };
}

const ALPINE = "docker-image://docker.io/library/alpine:latest";

test("the last rule that matches says whether a source is allowed", () => {
  const all = "docker-image://*";
  assert.equal(applyPolicies([policy(rule(DENY, all), rule(ALLOW, ALPINE))], source(ALPINE)), false);
  assert.throws(
    () => applyPolicies([policy(rule(ALLOW, ALPINE), rule(DENY, all))], source(ALPINE)),
    (error: unknown) =>
      error instanceof Error &&
      error.message === `source "${ALPINE}" denied by policy: source denied by policy`,
  );
  // what no rule is about is allowed
  assert.equal(applyPolicies([policy(rule(DENY, "https://*"))], source(ALPINE)), false);
  // every policy has its say
  assert.throws(() => applyPolicies([policy(rule(ALLOW, all)), policy(rule(DENY, all))], source(ALPINE)), {
    code: "permission_denied",
  });
});

test("a converted source is looked at again, with captures and attributes", () => {
  const op = source(ALPINE, { keep: "x" });
  const changed = applyPolicies(
    [
      policy(
        rule(
          CONVERT,
          "docker-image://docker.io/library/*:latest",
          // biome-ignore lint/suspicious/noTemplateCurlyInString: the policy's own template
          "docker-image://mirror.test/${1}:pinned",
          { "image.checksum": "sha256:1" },
        ),
        rule(DENY, "docker-image://docker.io/*"),
      ),
    ],
    op,
  );
  assert.equal(changed, true);
  assert.equal(op.identifier, "docker-image://mirror.test/alpine:pinned");
  assert.deepEqual(op.attrs, { keep: "x", "image.checksum": "sha256:1" });
  // the second time round there is nothing left to change
  assert.equal(applyPolicies([policy(rule(CONVERT, op.identifier, op.identifier))], op), false);
});

test("conversions that go round in circles end", () => {
  const circle = policy(rule(CONVERT, "http://a", "http://b"), rule(CONVERT, "http://b", "http://a"));
  assert.throws(() => applyPolicies([circle], source("http://a")), /too many operations/);
});

test("attributes can be conditions; names of objects' own parts are only names", () => {
  const conditional = (condition: AttrMatch, value: string) =>
    policy({
      action: DENY,
      selector: { identifier: "http://*", constraints: [{ key: "toString", value, condition }] },
    });
  const op = source("http://x");
  assert.throws(() => applyPolicies([conditional(AttrMatch.EQUAL, "")], op), { code: "permission_denied" });
  assert.equal(applyPolicies([conditional(AttrMatch.NOTEQUAL, "")], op), false);
  assert.equal(applyPolicies([conditional(AttrMatch.MATCHES, "^native")], op), false);
  const proto = source("http://x");
  const update = policy({
    action: CONVERT,
    selector: { identifier: "http://x" },
    updates: { identifier: "http://y", attrs: JSON.parse('{"__proto__": "z"}') },
  });
  applyPolicies([update], proto);
  assert.equal(Object.getPrototypeOf(proto.attrs), Object.prototype);
});

test("kinds of matches", () => {
  const exact = { action: DENY, selector: { identifier: "http://*", matchType: MatchType.EXACT } };
  assert.equal(applyPolicies([policy(exact)], source("http://x")), false);
  const regex = {
    action: CONVERT,
    selector: { identifier: "^http://(.*)\\.test$", matchType: MatchType.REGEX },
    updates: { identifier: "https://$1.example" },
  };
  const op = source("http://a.test");
  assert.equal(applyPolicies([policy(regex)], op), true);
  assert.equal(op.identifier, "https://a.example");
});

test("policies with holes are refused", () => {
  assert.throws(() => validatePolicy(policy({ action: DENY })), /invalid nil selector in policy/);
  assert.throws(
    () =>
      applyPolicies([policy({ action: CONVERT, selector: { identifier: "http://x" } })], source("http://x")),
    /missing destination for convert rule/,
  );
  assert.throws(() => applyPolicies([policy(rule(99 as never, "http://x"))], source("http://x")), {
    code: "invalid_argument",
  });
});

test("wildcards take as much as they can, and can't take for ever", () => {
  assert.deepEqual(matchWildcard("a*b*c", "aXbbYbZc"), ["aXbbYbZc", "XbbY", "Z"]);
  assert.deepEqual(matchWildcard("x", "x"), ["x"]);
  assert.equal(matchWildcard("a*", "b"), undefined);
  assert.throws(() => matchWildcard("a**", "a"), /invalid wildcard/);
  assert.throws(() => matchWildcard("*a".repeat(17), "a"), /too many stars/);
  const startMs = performance.now();
  assert.equal(matchWildcard(`${"*a".repeat(16)}b`, "a".repeat(20_000)), undefined);
  assert.ok(performance.now() - startMs < 2000);
});

test("hostile regular expressions are given up", () => {
  assert.throws(() => matchRegex("^(a+)+$", `${"a".repeat(40)}!`), { code: "invalid_argument" });
  assert.throws(() => matchRegex("(", "x"), /invalid regex "\("/);
  assert.equal(matchRegex("this.constructor", "x"), undefined);
});

test("templates expand as Go's", () => {
  const groups = ["whole", "one", undefined];
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the template's own syntax
  assert.equal(expandTemplate("${1}-$0-$$1-$2-$9-$name", groups), "one-whole-$1---");
});
