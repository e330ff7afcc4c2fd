import { BuildError } from "@kiln/base";

interface Clause {
  /** Bits of user, group and other that the clause is about. */
  readonly who: number;
  readonly op: "+" | "-" | "=";
  /** `rwxXst` letters, or one of `ugo` to copy from. */
  readonly perms: string;
}

const WHO: Readonly<Record<string, number>> = { u: 0o4700, g: 0o2070, o: 0o1007, a: 0o7777 };
const CLAUSE = /^([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)$/;

/**
 * Reads a mode as chmod(1) takes it (`u=rwX,go=rX`, or octal), for umask 0.
 *
 * @returns what turns the mode of a file (low 12 bits) into the new one.
 * @throws BuildError `invalid_argument` for anything else.
 */
export function parseSymbolicMode(text: string): (mode: number, isDir: boolean) => number {
  if (/^[0-7]{1,5}$/.test(text)) {
    const fixed = Number.parseInt(text, 8) & 0o7777;
    return () => fixed;
  }
  const clauses = text.split(",").flatMap((part) => parseClauses(part, text));
  return (mode, isDir) => clauses.reduce((at, clause) => applyClause(at, clause, isDir), mode & 0o7777);
}

function parseClauses(part: string, whole: string): Clause[] {
  const match = CLAUSE.exec(part);
  if (match === null) throw new BuildError("invalid_argument", `invalid mode: ${JSON.stringify(whole)}`);
  const letters = match[1] ?? "";
  let who = 0;
  for (const letter of letters === "" ? "a" : letters) who |= WHO[letter] ?? 0;
  return [...(match[2] ?? "").matchAll(/([-+=])([ugo]|[rwxXst]*)/g)].map((m) => ({
    who,
    op: m[1] as Clause["op"],
    perms: m[2] ?? "",
  }));
}

function applyClause(mode: number, clause: Clause, isDir: boolean): number {
  let bits = permissionBits(mode, clause.perms, isDir) & clause.who;
  // the sticky bit belongs to nobody: `t` counts whoever is named
  if (clause.perms.includes("t")) bits |= 0o1000;
  switch (clause.op) {
    case "+":
      return mode | bits;
    case "-":
      return mode & ~bits;
    case "=": {
      // set-id bits of a directory stay unless they are named, as chmod(1) has it
      const keep = isDir && !clause.perms.includes("s") ? 0o6000 : 0;
      return (mode & ~(clause.who & 0o6777 & ~keep)) | bits;
    }
  }
}

function permissionBits(mode: number, perms: string, isDir: boolean): number {
  switch (perms) {
    case "u":
      return ((mode >> 6) & 7) * 0o111;
    case "g":
      return ((mode >> 3) & 7) * 0o111;
    case "o":
      return (mode & 7) * 0o111;
  }
  let bits = 0;
  for (const letter of perms) {
    if (letter === "r") bits |= 0o444;
    else if (letter === "w") bits |= 0o222;
    else if (letter === "x") bits |= 0o111;
    else if (letter === "X" && (isDir || (mode & 0o111) !== 0)) bits |= 0o111;
    else if (letter === "s") bits |= 0o6000;
  }
  return bits;
}
