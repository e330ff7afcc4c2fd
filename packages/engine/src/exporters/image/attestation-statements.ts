import {
  type Descriptor,
  familiarName,
  formatPlatform,
  type Platform,
  parseDockerReference,
} from "@kiln/oci";
import type { ImmutableRef, Remote } from "@kiln/store";
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
    .map((name) => ({ name: dockerPurl(name, at.platform), digest: digestMap(at.target.digest) }));
  const statements = await makeStatements(supplemented, subjects, at.ctx);
  return statements.map((statement) => ({
    predicateType: statement.predicateType,
    text: statementText(statement, false),
  }));
}

/** Package URL of an image: `pkg:docker/alpine@latest?platform=linux%2Famd64`. */
export function dockerPurl(name: string, platform: Platform | undefined, type = "docker"): string {
  const ref = parseDockerReference(name);
  const familiar = familiarName(ref);
  const qualifiers = new Map<string, string>();
  if (ref.digest !== undefined) qualifiers.set("digest", ref.digest);
  if (platform !== undefined) qualifiers.set("platform", formatPlatform(platform));
  const version = ref.tag ?? (ref.digest === undefined ? "latest" : undefined);
  const query = [...qualifiers]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${encodeURIComponent(value)}`)
    .join("&");
  const path = familiar.split("/").map(encodePurl).join("/");
  return `pkg:${type}/${path}${version === undefined ? "" : `@${encodePurl(version)}`}${query === "" ? "" : `?${query}`}`;
}

function encodePurl(text: string): string {
  return encodeURIComponent(text).replaceAll("%3A", ":");
}
