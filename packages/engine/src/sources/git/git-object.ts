import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { verifyPgpSignature, verifySshSignature } from "../signature.ts";
import { invalid } from "../source-attrs.ts";
import type { GitSignatureRequest } from "./git-request.ts";

/** What a git name was resolved to. */
export interface GitMetadata {
  readonly ref: string;
  /** Id of what the name points to: a commit, or a tag object. */
  readonly checksum: string;
  /** The commit behind an annotated tag; "" otherwise. */
  readonly commitChecksum: string;
}

/** {@link GitMetadata} with the objects themselves. */
export interface GitObjects extends GitMetadata {
  readonly commitObject: Uint8Array;
  /** Empty without a tag object. */
  readonly tagObject: Uint8Array;
}

/** A commit or tag object, taken apart as far as signatures need it. */
export interface GitObject {
  readonly type: "commit" | "tag";
  readonly signature: string;
  readonly signedData: Buffer;
}

const REQUIRED = {
  commit: ["tree", "author", "committer"],
  tag: ["object", "type", "tag", "tagger"],
} as const;
const SIGNATURE_STARTS = ["-----BEGIN PGP SIGNATURE-----", "-----BEGIN SSH SIGNATURE-----"];

/** Separates an object from its signature. Bytes are kept: names may be in any encoding. */
export function parseGitObject(raw: Uint8Array): GitObject {
  const lines = Buffer.from(raw).toString("latin1").split("\n");
  const type = lines[0]?.startsWith("object ") ? "tag" : "commit";
  const signed: string[] = [];
  const signature: string[] = [];
  const headers = new Set<string>();
  let at = 0;
  let inSignature = false;
  for (; at < lines.length && lines[at] !== ""; at++) {
    const line = lines[at]!;
    const start = type === "commit" ? /^gpgsig(?:-sha256)? (.*)$/s.exec(line) : null;
    if (start) {
      inSignature = true;
      signature.push(start[1]!);
    } else if (inSignature && line.startsWith(" ")) signature.push(line.slice(1));
    else {
      inSignature = false;
      signed.push(line);
      headers.add(line.split(" ", 1)[0]!);
    }
  }
  const rest = lines.slice(at);
  const end = type === "tag" ? rest.findIndex((line) => SIGNATURE_STARTS.includes(line)) : -1;
  signed.push(...(end < 0 ? rest : rest.slice(0, end)));
  if (end >= 0) signature.push(...rest.slice(end));
  for (const header of REQUIRED[type]) {
    if (!headers.has(header)) throw invalid(`invalid ${type} object: missing ${header} header`);
  }
  const text = signed.join("\n") + (type === "tag" ? "\n" : "");
  return { type, signature: signature.join("\n"), signedData: Buffer.from(text, "latin1") };
}

/** Throws unless the object has the id. */
export function checkGitObject(raw: Uint8Array, type: "commit" | "tag", id: string): void {
  const hash = createHash(id.length === 64 ? "sha256" : "sha1");
  const found = hash.update(`${type} ${raw.length}\0`).update(raw).digest("hex");
  if (found !== id) {
    throw new BuildError(
      "data_loss",
      `${type} object checksum verification failed: checksum mismatch: expected ${id}, got ${found}`,
    );
  }
}

/** Throws `permission_denied` unless the tag or else the commit is signed as requested. */
export async function verifyGitSignature(
  objects: GitObjects,
  request: GitSignatureRequest,
  signal: AbortSignal,
): Promise<void> {
  let tagError: unknown;
  if (!request.ignoreSignedTag && objects.tagObject.length > 0) {
    checkGitObject(objects.tagObject, "tag", objects.checksum);
    try {
      return await verifyObject(parseGitObject(objects.tagObject), request, signal);
    } catch (error) {
      tagError = error;
    }
  }
  if (request.requireSignedTag) {
    throw tagError ?? new BuildError("permission_denied", "signed tag required but no signed tag found");
  }
  const id = objects.commitChecksum === "" ? objects.checksum : objects.commitChecksum;
  checkGitObject(objects.commitObject, "commit", id);
  await verifyObject(parseGitObject(objects.commitObject), request, signal);
}

async function verifyObject(
  object: GitObject,
  request: GitSignatureRequest,
  signal: AbortSignal,
): Promise<void> {
  const { signature, signedData } = object;
  const check = { signature, publicKey: request.publicKey, rejectExpired: request.rejectExpired, signal };
  if (signature === "") throw new BuildError("permission_denied", "git object is not signed");
  if (signature.startsWith(SIGNATURE_STARTS[1]!)) return verifySshSignature(signedData, check);
  if (!signature.startsWith(SIGNATURE_STARTS[0]!)) throw invalid("invalid signature format");
  const dir = await mkdtemp(join(tmpdir(), "kiln-git-object-"));
  try {
    const file = join(dir, "object");
    await writeFile(file, signedData);
    await verifyPgpSignature(file, check);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
