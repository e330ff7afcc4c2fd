import { randomBytes } from "node:crypto";
import { BuildError } from "@kiln/base";

const ID_LENGTH = 25;
/** Longest id: it becomes part of paths and of names in the kernel. */
const MAX_ID_LENGTH = 128;

/** A random id: 25 characters of base 36. */
export function newContainerId(): string {
  const bytes = randomBytes(17);
  return BigInt(`0x${bytes.toString("hex")}`)
    .toString(36)
    .padStart(ID_LENGTH, "0")
    .slice(-ID_LENGTH);
}

/** @throws BuildError `invalid_argument` unless the id is letters and digits only. */
export function validateContainerId(id: string): void {
  if (id === "") throw new BuildError("invalid_argument", "container id must not be empty");
  if (/^[A-Za-z0-9]+$/.test(id) && id.length <= MAX_ID_LENGTH) return;
  throw new BuildError(
    "invalid_argument",
    `invalid container id ${JSON.stringify(id)}: only letters and numbers are allowed`,
  );
}
