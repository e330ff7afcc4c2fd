import type { ImmutableRef } from "@kiln/store";
import { goJsonText } from "../cache-digest/go-json.ts";
import type { OpContext } from "../op-context.ts";
import type { Attestation } from "../solve/build-results.ts";
import { rewriteJson } from "./json-text.ts";
import { attestationContent } from "./unbundle.ts";

/** A subject of an in-toto statement. */
export interface StatementSubject {
  readonly name: string;
  readonly digest: Readonly<Record<string, string>>;
}

/** A statement on its way into an image or a file. */
export interface Statement {
  readonly predicateType: string;
  readonly path: string;
  readonly subjects: readonly StatementSubject[];
  /** JSON text of the predicate. */
  readonly predicate: string;
}

const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";

/** `sha256:abc` as in-toto writes it. */
export function digestMap(...digests: readonly string[]): Record<string, string> {
  const map: Record<string, string> = Object.create(null);
  for (const digest of digests) {
    const at = digest.indexOf(":");
    map[digest.slice(0, at)] = digest.slice(at + 1);
  }
  return map;
}

/** Makes statements about `defaults` of attestations that speak of what they are attached to. */
export async function makeStatements(
  attestations: readonly Attestation<ImmutableRef>[],
  defaults: readonly StatementSubject[],
  ctx: OpContext,
): Promise<Statement[]> {
  return await Promise.all(
    attestations.map(async (attestation) => ({
      predicateType: attestation.predicateType,
      path: attestation.path,
      subjects: subjectsOf(attestation, defaults),
      predicate: await attestationContent(attestation, ctx),
    })),
  );
}

function subjectsOf(
  attestation: Attestation<ImmutableRef>,
  defaults: readonly StatementSubject[],
): StatementSubject[] {
  const wanted =
    attestation.subjects.length === 0
      ? [{ kind: "self" as const, name: "", digests: [] }]
      : attestation.subjects;
  return wanted.flatMap((subject): StatementSubject[] => {
    if (subject.kind === "raw") {
      return [{ name: subject.name === "" ? "_" : subject.name, digest: digestMap(...subject.digests) }];
    }
    const extra = subject.name === "" || subject.name === "_" ? [] : [subject.name];
    return defaults.flatMap((item) => [item, ...extra.map((name) => ({ name, digest: item.digest }))]);
  });
}

/** The statement as Go writes it: compact, or indented by two spaces. The predicate's numbers keep their digits. */
export function statementText({ predicateType, subjects, predicate }: Statement, indent: boolean): string {
  const head = goJsonText({
    _type: STATEMENT_TYPE,
    predicateType,
    subject: subjects.map(({ name, digest }) => ({ name, digest })),
  });
  const text = `${head.slice(0, -1)},"predicate":${predicate === "" ? "null" : predicate}}`;
  return rewriteJson(text, indent ? "  " : undefined);
}
