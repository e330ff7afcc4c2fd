import { create } from "@bufbuild/protobuf";
import { ResolveSourceMetaResponseSchema } from "@kiln/api/gateway";
import type { SourceOp } from "@kiln/api/pb";
import { CheckPolicyRequestSchema, type DecisionResponse } from "@kiln/api/policysession";
import { type Policy, PolicyAction, PolicySchema } from "@kiln/api/sourcepolicy";
import { BuildError, wrapError } from "@kiln/base";
import type { Platform } from "@kiln/oci";
import { checkPolicy, type SessionManager } from "@kiln/session";
import { goJsonText } from "../cache-digest/go-json.ts";
import { metadataMessage, metadataOptions, platformMessage } from "../frontends/gateway-service.ts";
import type { JobBridge } from "./bridge.ts";
import { JOB_POLICY_SESSION } from "./builder.ts";
import type { PolicyEvaluator } from "./policy-evaluator.ts";
import { applyPolicies } from "./source-policy.ts";

/** Questions that one client's policy may ask about one source. */
const MAX_ROUNDS = 10;

/**
 * Evaluates policies for a build: the static ones that came with it, then the client's, which may ask for
 * metadata of the source before it decides (buildkit.md §10.3).
 */
export function createPolicyEvaluator(sessions: SessionManager): (bridge: JobBridge) => PolicyEvaluator {
  return (bridge) => ({
    evaluate: async (source, platform, extra) => {
      const own = bridge.policies();
      const policies: Policy[] = [
        create(PolicySchema, { rules: own.flatMap((policy) => policy.rules) }),
        ...extra,
      ];
      let changed = applyPolicies(policies, source);
      const session = bridge.builder.jobValues(JOB_POLICY_SESSION).findLast((id) => id !== "");
      if (typeof session !== "string") return changed;
      const asking = { bridge, sessions, session, policies };
      changed = (await askClient(asking, source, platform)) || changed;
      return changed;
    },
  });
}

interface Asking {
  readonly bridge: JobBridge;
  readonly sessions: SessionManager;
  readonly session: string;
  readonly policies: readonly Policy[];
}

async function askClient(asking: Asking, source: SourceOp, platform: Platform | undefined): Promise<boolean> {
  const signal = AbortSignal.timeout(120_000);
  const caller = await asking.sessions.get(asking.session, { signal });
  let known = create(ResolveSourceMetaResponseSchema, { Source: source });
  let changed = false;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const answer = await checkPolicy(
      caller,
      create(CheckPolicyRequestSchema, {
        ...(platform === undefined ? {} : { Platform: platformMessage(platform) }),
        Source: known,
      }),
      signal,
    );
    if (answer.result.case === "request") {
      const wanted = answer.result.value;
      checkSameSource(source, wanted.Source);
      try {
        const found = await asking.bridge.resolveAllowedMetadata(source, metadataOptions(wanted), signal);
        known = metadataMessage(found);
      } catch (error) {
        throw wrapError(error, "error resolving source metadata from policy request");
      }
      continue;
    }
    if (answer.result.case !== "decision") throw new BuildError("unknown", "no decision in policy response");
    const decision = answer.result.value;
    if (decision.action === PolicyAction.ALLOW) return changed;
    if (decision.action !== PolicyAction.CONVERT) throw denied(source, decision);
    if (decision.update === undefined) {
      throw new BuildError("invalid_argument", "convert action requires updated source");
    }
    source.identifier = decision.update.identifier;
    source.attrs = decision.update.attrs;
    applyPolicies(asking.policies, source);
    known = create(ResolveSourceMetaResponseSchema, { Source: source });
    changed = true;
  }
  throw new BuildError("failed_precondition", "too many policy requests");
}

function checkSameSource(source: SourceOp, asked: SourceOp | undefined): void {
  if (asked === undefined || asked.identifier !== source.identifier) {
    throw new BuildError(
      "invalid_argument",
      `policy requested different source identifier: ${JSON.stringify(asked?.identifier ?? "")} != ${JSON.stringify(source.identifier)}`,
    );
  }
  const have = Object.entries(source.attrs).sort();
  const want = Object.entries(asked.attrs).sort();
  if (JSON.stringify(have) !== JSON.stringify(want)) {
    throw new BuildError("invalid_argument", "policy requested different source attrs");
  }
}

function denied(source: SourceOp, decision: DecisionResponse): BuildError {
  const messages = decision.denyMessages.map(({ message }) => ({ message }));
  const detail = {
    typeUrl: "github.com/moby/buildkit/policysession.DecisionResponse+json",
    value: new TextEncoder().encode(
      goJsonText({ action: decision.action, denyMessages: messages.length === 0 ? undefined : messages }),
    ),
  };
  return new BuildError(
    "permission_denied",
    `source ${JSON.stringify(source.identifier)} not allowed by policy: action DENY`,
    { wire: [detail] },
  );
}
