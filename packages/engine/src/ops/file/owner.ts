import type { ChownOpt, UserOpt } from "@kiln/api/pb";
import { isBuildError } from "@kiln/base";
import { readRegularFile } from "../../regular-file.ts";
import type { Owner } from "./copier.ts";

/** Account files over this size are refused, as upstream does. */
const MAX_ACCOUNT_FILE_BYTES = 10 << 20;

/** Gives the directory in which the account files of an input or action are; undefined for an empty tree. */
export type AccountRoot = (index: number) => Promise<string | undefined>;

/**
 * Works out `owner`: numbers are taken as they are (a user's number is its group's too), names are looked
 * up in `/etc/passwd` and `/etc/group` of the tree that the option names. A name that isn't found is 0.
 */
export async function resolveOwner(
  owner: ChownOpt | undefined,
  root: AccountRoot,
): Promise<Owner | undefined> {
  if (owner === undefined) return undefined;
  let uid = 0;
  let gid = 0;
  const user = owner.user?.user;
  if (user?.case === "byID") {
    uid = user.value;
    gid = user.value;
  } else if (user?.case === "byName") {
    const fields = await findAccount(root, "/etc/passwd", owner.user as UserOpt);
    uid = accountNumber(fields?.[2]);
    gid = accountNumber(fields?.[3]);
  }
  const group = owner.group?.user;
  if (group?.case === "byID") gid = group.value;
  else if (group?.case === "byName") {
    const fields = await findAccount(root, "/etc/group", owner.group as UserOpt);
    if (fields !== undefined) gid = accountNumber(fields[2]);
  }
  return { uid, gid };
}

async function findAccount(root: AccountRoot, file: string, who: UserOpt): Promise<string[] | undefined> {
  if (who.user.case !== "byName") return undefined;
  const { name, input } = who.user.value;
  const dir = await root(Number(input));
  if (dir === undefined) return undefined;
  const text = readAccountFile(dir, file);
  for (const line of text?.split("\n") ?? []) {
    const fields = line.trim().split(":");
    if (fields[0] === name) return fields;
  }
  return undefined;
}

/** The file's text; undefined when there is none. */
function readAccountFile(root: string, path: string): string | undefined {
  try {
    return Buffer.from(readRegularFile(root, path, MAX_ACCOUNT_FILE_BYTES)).toString("utf8");
  } catch (error) {
    if (isBuildError(error, "not_found")) return undefined;
    throw error;
  }
}

/** A field of an account file; what isn't a number of 32 bits counts as 0. */
function accountNumber(text: string | undefined): number {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return 0;
  const value = Number(text);
  return value < 0xffffffff ? value : 0;
}
