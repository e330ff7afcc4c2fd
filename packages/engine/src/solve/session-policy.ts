import { create } from "@bufbuild/protobuf";
import { ResolveSourceMetaResponseSchema } from "@kiln/api/gateway";
import { type SourceOp, SourceOpSchema } from "@kiln/api/pb";
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
      const session = bridge.builder.jobValues(JOB_POLICY_SESSION).findLast((id) => id !== "");
      const asking = { bridge, sessions, session: typeof session === "string" ? session : "", policies };
      let changed = await evaluateSource(asking, source, platform);
      const bundle = bundleSource(source);
      if (bundle === undefined) return changed;
      try {
        if (await evaluateSource(asking, bundle.source, platform)) {
          bundle.apply();
          changed = true;
        }
      } catch (error) {
        throw wrapError(error, "error evaluating git bundle source policy");
      }
      return changed;
    },
  });
}

/** Static policies first, then the client's. */
async function evaluateSource(
  asking: Asking,
  source: SourceOp,
  platform: Platform | undefined,
): Promise<boolean> {
  source.identifier = asking.bridge.host.worker.sources.canonical(source.identifier);
  const changed = applyPolicies(asking.policies, source);
  if (asking.session === "") return changed;
  return (await askClient(asking, source, platform)) || changed;
}

const STORE_ID = "oci.store";
const BUNDLE_ATTRS = ["oci.session", STORE_ID];

/**
 * The blob that a git source takes its commits from, as the source that it is by itself, so that policies
 * about blobs hold for it too.
 */
function bundleSource(git: SourceOp): { readonly source: SourceOp; readonly apply: () => void } | undefined {
  const locator = git.attrs["git.bundle"] ?? "";
  if (!git.identifier.startsWith("git://") || locator === "") return undefined;
  const attrs: Record<string, string> = {};
  // the store of a layout is named after the locator unless the op names one
  const implied = git.attrs[STORE_ID] ? "" : locator.replace(/^[^:]*:\/\/|@.*$|:[^:/@]*(?=@|$)/gs, "");
  if (locator.startsWith("oci-layout+blob://")) {
    for (const key of BUNDLE_ATTRS) {
      const value = git.attrs[key];
      if (value !== undefined && value !== "") attrs[key] = value;
    }
    attrs[STORE_ID] ??= implied;
  }
  const source = create(SourceOpSchema, { identifier: locator, attrs });
  const apply = (): void => {
    git.attrs["git.bundle"] = source.identifier;
    for (const key of BUNDLE_ATTRS) {
      const value = source.attrs[key];
      if (value === undefined || (key === STORE_ID && value === implied)) delete git.attrs[key];
      else git.attrs[key] = value;
    }
  };
  return { source, apply };
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
    source.identifier = asking.bridge.host.worker.sources.canonical(source.identifier);
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
