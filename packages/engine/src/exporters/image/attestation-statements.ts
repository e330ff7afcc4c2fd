import type { Descriptor, Platform } from "@kiln/oci";
import type { ImmutableRef, Remote } from "@kiln/store";
import { imagePurl } from "../../attestations/purl.ts";
import { supplementSbom } from "../../attestations/sbom.ts";
import { digestMap, makeStatements, statementText } from "../../attestations/statements.ts";
import { unbundle } from "../../attestations/unbundle.ts";
import type { OpContext } from "../../op-context.ts";
import type { Attestation } from "../../solve/build-results.ts";

/** What the attestations of one manifest are about. */
export interface AttestationTarget {
  readonly imageNames: readonly string[];
  readonly platform: Platform;
  readonly target: Descriptor;
  readonly ref: ImmutableRef | undefined;
  readonly remote: Remote;
  readonly ctx: OpContext;
}

/** The statements that go into an image's attestation manifest. */
export async function attestationStatements(
  attestations: readonly Attestation<ImmutableRef>[],
  at: AttestationTarget,
): Promise<{ predicateType: string; text: string }[]> {
  const single = await unbundle(attestations, at.ctx);
  const supplemented = await Promise.all(
    single.map((attestation) => supplementSbom(attestation, at.ref, at.remote, at.ctx)),
  );
  const subjects = at.imageNames
    .filter((name) => name !== "")
    .map((name) => ({ name: imagePurl(name, at.platform), digest: digestMap(at.target.digest) }));
  const statements = await makeStatements(supplemented, subjects, at.ctx);
  return statements.map((statement) => ({
    predicateType: statement.predicateType,
    text: statementText(statement, false),
  }));
}
