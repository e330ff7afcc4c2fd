import { lstatSync, readdirSync } from "node:fs";
import { posix } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import type { ImmutableRef } from "@kiln/store";
import { decodePath, fsPath, localMount, rootPath } from "@kiln/sys";
import { type GoJson, goJsonText, sortedKeys } from "../cache-digest/go-json.ts";
import type { OpContext } from "../op-context.ts";
import { readRegularFile } from "../regular-file.ts";
import type { Attestation, AttestationSubject } from "../solve/build-results.ts";

/** Largest single statement. */
const MAX_STATEMENT_BYTES = 80 << 20;
/** Files in one bundle. */
const MAX_BUNDLE_FILES = 10_000;
const PROVENANCE_PREFIX = "https://slsa.dev/provenance/";

type RefAttestation = Attestation<ImmutableRef>;

/**
 * Takes bundles apart: each file of one is a statement that becomes an attestation of its own. Core SBOMs
 * come first.
 *
 * @throws BuildError `invalid_argument`, also for provenance, which only the engine itself may give.
 */
export async function unbundle(
  attestations: readonly RefAttestation[],
  ctx: OpContext,
): Promise<RefAttestation[]> {
  for (const attestation of attestations) validate(attestation);
  const single: RefAttestation[] = [];
  for (const attestation of attestations) {
    if (attestation.kind === "bundle") single.push(...(await openBundle(attestation, ctx)));
    else if (attestation.predicateType.startsWith(PROVENANCE_PREFIX) && attestation.content === undefined) {
      throw invalid("frontend may not set provenance attestations");
    } else single.push(attestation);
  }
  for (const attestation of single) validate(attestation);
  return [...single.filter(isCoreSbom), ...single.filter((item) => !isCoreSbom(item))];
}

function validate(attestation: RefAttestation): void {
  if (attestation.kind !== "bundle" && attestation.path === "") {
    throw invalid("attestation does not have set path");
  }
  if (attestation.ref === undefined && attestation.content === undefined) {
    throw invalid("attestation does not have available content");
  }
}

function isCoreSbom(attestation: RefAttestation): boolean {
  const core = attestation.metadata.get("sbom-core");
  return core !== undefined && attestation.path.split(".", 1)[0] === new TextDecoder().decode(core);
}

async function openBundle(bundle: RefAttestation, ctx: OpContext): Promise<RefAttestation[]> {
  if (bundle.content !== undefined) throw invalid("attestation bundle cannot have callback");
  if (bundle.ref === undefined) throw invalid("no ref provided for attestation bundle");
  await using mountable = await bundle.ref.mount(true, { signal: ctx.signal, session: ctx.sessions });
  using root = localMount(mountable.mounts);
  const dir = rootPath(root.path, bundle.path);
  const names = readdirSync(fsPath(dir), "buffer").map(decodePath).sort();
  if (names.length > MAX_BUNDLE_FILES) throw invalid(`attestation bundle has ${names.length} files`);
  const found: RefAttestation[] = [];
  for (const name of names) {
    const path = posix.join(bundle.path, name);
    if (lstatSync(fsPath(`${dir}/${name}`)).isDirectory()) throw invalid(`${path} is not a regular file`);
    const text = new TextDecoder().decode(readRegularFile(root.path, path, MAX_STATEMENT_BYTES));
    const attestation = fromStatement(text, path, bundle);
    if (attestation.predicateType.startsWith(PROVENANCE_PREFIX)) {
      throw invalid("frontend may not bundle provenance attestations");
    }
    found.push(attestation);
  }
  return found;
}

function fromStatement(text: string, path: string, bundle: RefAttestation): RefAttestation {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalid(`cannot decode in-toto statement: ${errorMessage(error)}`);
  }
  const statement = (typeof parsed === "object" && parsed !== null ? parsed : {}) as Record<string, unknown>;
  const predicateType = typeof statement["predicateType"] === "string" ? statement["predicateType"] : "";
  if (bundle.predicateType !== "" && predicateType !== bundle.predicateType) {
    throw invalid(
      `bundle entry ${predicateType} does not match required predicate type ${bundle.predicateType}`,
    );
  }
  const predicate = Buffer.from(goJsonText(sortedKeys((statement["predicate"] ?? null) as GoJson)));
  const subjects = Array.isArray(statement["subject"]) ? statement["subject"].map(subjectOf) : [];
  return {
    kind: "in-toto",
    metadata: bundle.metadata,
    ref: undefined,
    path,
    predicateType,
    subjects,
    content: async () => predicate,
  };
}

function subjectOf(value: unknown): AttestationSubject {
  const subject = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const digest = (
    typeof subject["digest"] === "object" && subject["digest"] !== null ? subject["digest"] : {}
  ) as Record<string, unknown>;
  return {
    kind: "raw",
    name: typeof subject["name"] === "string" ? subject["name"] : "",
    digests: Object.entries(digest).map(([algorithm, hex]) => `${algorithm}:${String(hex)}`),
  };
}

/** The predicate of an attestation as JSON text. */
export async function attestationContent(attestation: RefAttestation, ctx: OpContext): Promise<string> {
  if (attestation.content !== undefined) {
    return new TextDecoder().decode(await attestation.content({ signal: ctx.signal }));
  }
  if (attestation.ref === undefined) throw invalid("no available content for attestation");
  await using mountable = await attestation.ref.mount(true, { signal: ctx.signal, session: ctx.sessions });
  using root = localMount(mountable.mounts);
  return new TextDecoder().decode(readRegularFile(root.path, attestation.path, MAX_STATEMENT_BYTES));
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
