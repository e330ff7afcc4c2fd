/** Bits of Go's `os.FileMode`, the mode on fsutil's wire. Source: Go's io/fs. */
export const GoMode = {
  DIR: 2 ** 31,
  SYMLINK: 1 << 27,
  DEVICE: 1 << 26,
  NAMED_PIPE: 1 << 25,
  SOCKET: 1 << 24,
  SETUID: 1 << 23,
  SETGID: 1 << 22,
  CHAR_DEVICE: 1 << 21,
  STICKY: 1 << 20,
  IRREGULAR: 1 << 19,
  PERM: 0o777,
} as const;

const typeBits =
  GoMode.DIR +
  GoMode.SYMLINK +
  GoMode.DEVICE +
  GoMode.NAMED_PIPE +
  GoMode.SOCKET +
  GoMode.CHAR_DEVICE +
  GoMode.IRREGULAR;

/** True when `bit` (one of {@link GoMode}) is set. */
export function hasGoMode(mode: number, bit: number): boolean {
  return (mode & bit) !== 0;
}

export function isGoDir(mode: number): boolean {
  return (mode & GoMode.DIR) !== 0;
}

export function isGoSymlink(mode: number): boolean {
  return (mode & GoMode.SYMLINK) !== 0;
}

/** Regular: no type bit at all. Only such entries have contents to ask for. */
export function isGoRegular(mode: number): boolean {
  return (mode & typeBits) === 0;
}

const S_IFMT = 0o170000;

/** Go's mode of a POSIX one (`st_mode`). */
export function goModeFromPosix(mode: number): number {
  let out = mode & GoMode.PERM;
  switch (mode & S_IFMT) {
    case 0o040000:
      out += GoMode.DIR;
      break;
    case 0o120000:
      out |= GoMode.SYMLINK;
      break;
    case 0o060000:
      out |= GoMode.DEVICE;
      break;
    case 0o020000:
      out |= GoMode.DEVICE | GoMode.CHAR_DEVICE;
      break;
    case 0o010000:
      out |= GoMode.NAMED_PIPE;
      break;
    case 0o140000:
      out |= GoMode.SOCKET;
      break;
  }
  if (mode & 0o4000) out |= GoMode.SETUID;
  if (mode & 0o2000) out |= GoMode.SETGID;
  if (mode & 0o1000) out |= GoMode.STICKY;
  return out >>> 0;
}

/** POSIX mode (type and 07777) of Go's. */
export function posixFromGoMode(mode: number): number {
  return goPermissions(mode) | goFileType(mode);
}

/** The POSIX permissions (07777) of Go's mode. */
export function goPermissions(mode: number): number {
  let out = mode & GoMode.PERM;
  if (mode & GoMode.SETUID) out |= 0o4000;
  if (mode & GoMode.SETGID) out |= 0o2000;
  if (mode & GoMode.STICKY) out |= 0o1000;
  return out;
}

function goFileType(mode: number): number {
  if (mode & GoMode.DIR) return 0o040000;
  if (mode & GoMode.SYMLINK) return 0o120000;
  if (mode & GoMode.NAMED_PIPE) return 0o010000;
  if (mode & GoMode.SOCKET) return 0o140000;
  if (mode & GoMode.DEVICE) return mode & GoMode.CHAR_DEVICE ? 0o020000 : 0o060000;
  return 0o100000;
}
