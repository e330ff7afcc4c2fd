import { BuildError } from "@kiln/base";
import type { RootDir } from "./root-dir.ts";

/** Who a process runs as. */
export interface ExecUser {
  readonly uid: number;
  readonly gid: number;
  /** Without the primary group. */
  readonly supplementaryGids: readonly number[];
}

const MAX_USER_FILE_BYTES = 10 << 20;
const MAX_ID = 0x7fffffff;
/** One less than what fits: the kernel takes the last id for "leave it as it is", which is the superuser. */
const MAX_NUMERIC_ID = 0xfffffffe;

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/**
 * Finds the user that a USER text names in a root file system.
 *
 * `uid:gid` in numbers is taken as it is (up to 2³²-2). Everything else asks /etc/passwd and /etc/group of the
 * root, regular files of at most 10 MiB; there ids end at 2³¹-1, so that none wraps to another. The empty text
 * is the superuser, with the groups listed for it; it never fails. Rules: moby/sys/user and BuildKit's `oci.GetUser`.
 *
 * @throws BuildError `invalid_argument` when the user or group can't be found.
 */
export function lookupUser(root: RootDir, text: string): ExecUser {
  const numeric = numericUser(text);
  if (numeric) return numeric;
  const passwd = readUserFile(root, "/etc/passwd");
  const group = readUserFile(root, "/etc/group");
  if (text !== "") return findUser(text, passwd, group);
  try {
    return findUser("0", passwd, group);
  } catch {
    return { uid: 0, gid: 0, supplementaryGids: [] };
  }
}

/**
 * The environment with what a runtime leaves to chance: one whose id /etc/passwd doesn't know lives in `/`.
 * runc does so by itself, crun leaves HOME out.
 */
export function withHome(root: RootDir, env: readonly string[], uid: number): readonly string[] {
  if (env.some((entry) => entry.startsWith("HOME="))) return env;
  const passwd = readUserFile(root, "/etc/passwd");
  if (!(passwd instanceof BuildError) && findPasswd(passwd, (entry) => entry.uid === uid)) return env;
  return [...env, "HOME=/"];
}

function numericUser(text: string): ExecUser | undefined {
  const colon = text.indexOf(":");
  if (colon < 0) return undefined;
  const uid = numericId(text.slice(0, colon));
  const gid = numericId(text.slice(colon + 1));
  return uid === undefined || gid === undefined ? undefined : { uid, gid, supplementaryGids: [] };
}

function numericId(text: string): number | undefined {
  if (text === "root") return 0;
  if (!/^[0-9]{1,32}$/.test(text)) return undefined;
  const value = Number(text);
  return value <= MAX_NUMERIC_ID ? value : undefined;
}

/** The file's content; undefined when there is none, or nothing that may be read as one. */
function readUserFile(root: RootDir, path: string): Buffer | BuildError | undefined {
  try {
    return root.readFile(path, MAX_USER_FILE_BYTES);
  } catch (error) {
    return error instanceof BuildError && error.message.includes("exceeds") ? error : undefined;
  }
}

/** Go's Atoi: an optional sign and digits. */
function integerOf(text: string): number | undefined {
  return /^[+-]?[0-9]{1,32}$/.test(text) ? Number(text) : undefined;
}

function findUser(
  text: string,
  passwd: Buffer | BuildError | undefined,
  group: Buffer | BuildError | undefined,
): ExecUser {
  const [userName = "", groupName = ""] = text.split(":");
  const wantedUid = integerOf(userName);
  if (passwd instanceof BuildError) {
    throw new BuildError("invalid_argument", `unable to find user ${userName || "0"}: ${passwd.message}`);
  }
  const user = findPasswd(passwd, (entry) => {
    if (userName === "") return entry.uid === 0;
    return wantedUid === undefined ? entry.name === userName : entry.uid === wantedUid;
  });
  if (!user && userName !== "" && wantedUid === undefined) {
    throw new BuildError(
      "invalid_argument",
      `unable to find user ${userName}: no matching entries in passwd file`,
    );
  }
  const uid = inRange(user?.uid ?? wantedUid ?? 0);
  const gid = user?.gid ?? 0;
  if (groupName === "" && !user?.name) return { uid, gid: inRange(gid), supplementaryGids: [] };
  if (group instanceof BuildError) {
    throw new BuildError(
      "invalid_argument",
      `unable to find groups for spec ${user?.name ?? ""}: ${group.message}`,
    );
  }
  if (groupName !== "") return { uid, gid: findGroup(group, groupName), supplementaryGids: [] };
  const groups = groupsWhere(group, (entry) => entry.members.includes(user?.name ?? ""));
  return { uid, gid: inRange(gid), supplementaryGids: groups.map((entry) => inRange(entry.gid)) };
}

function findGroup(group: Buffer | undefined, name: string): number {
  const wanted = integerOf(name);
  const [found] = groupsWhere(group, (entry) =>
    wanted === undefined ? entry.name === name : entry.gid === wanted,
  );
  if (found) return inRange(found.gid);
  if (wanted !== undefined) return inRange(wanted);
  throw new BuildError("invalid_argument", `unable to find group ${name}: no matching entries in group file`);
}

function inRange(id: number): number {
  if (id >= 0 && id <= MAX_ID) return id;
  throw new BuildError("invalid_argument", `uids and gids must be in range 0-${MAX_ID}`);
}

/** Unreadable numbers count as 0, as in the C library's readers. */
function fieldNumber(text: string | undefined): number {
  return integerOf(text ?? "") ?? 0;
}

function* linesOf(file: Buffer | undefined): Generator<string[]> {
  if (!file) return;
  for (const line of file.toString("utf8").split("\n")) {
    const text = line.trim();
    if (text !== "") yield text.split(":");
  }
}

function findPasswd(
  file: Buffer | undefined,
  wanted: (entry: PasswdEntry) => boolean,
): PasswdEntry | undefined {
  for (const [name = "", , uid, gid] of linesOf(file)) {
    const entry = { name, uid: fieldNumber(uid), gid: fieldNumber(gid) };
    if (wanted(entry)) return entry;
  }
  return undefined;
}

function groupsWhere(file: Buffer | undefined, wanted: (entry: GroupEntry) => boolean): GroupEntry[] {
  const found: GroupEntry[] = [];
  for (const [name = "", , gid, members = ""] of linesOf(file)) {
    const entry = { name, gid: fieldNumber(gid), members: members.split(",").map((member) => member.trim()) };
    if (wanted(entry)) found.push(entry);
  }
  return found;
}
