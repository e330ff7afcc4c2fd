export {
  type AtPath,
  chmodAt,
  chmodFd,
  chownAt,
  chownFd,
  type FileStat,
  fstat,
  isDirectory,
  isRegular,
  isSymlink,
  linkAt,
  lstat,
  makeDevice,
  mkdirAt,
  mknodAt,
  openAt,
  readlinkAt,
  renameAt,
  rmdirAt,
  statAt,
  symlinkAt,
  tryLstat,
  tryStatAt,
  unlinkAt,
  utimesAt,
  utimesFd,
} from "./at.ts";
export { closeOnExec, sendDatagram } from "./datagram.ts";
export { entryPath } from "./entry.ts";
export { isErrno, type SysError, sysError } from "./errno.ts";
export { AT, MNT, MS, O, S } from "./flags.ts";
export { MachineNotes } from "./machine-notes.ts";
export { shareAllocatorArenas, trimMemory } from "./memory.ts";
export {
  escapeLowerDir,
  type LocalMountOptions,
  localMount,
  makePrivate,
  mountAll,
  mountOne,
  mountPoints,
  readonlyMounts,
  remountReadonly,
  splitLowerDirs,
  type UnmountOptions,
  unmount,
  unmountAll,
  unmountAsync,
} from "./mount.ts";
export { type ParsedMountOptions, parseMountOptions } from "./mount-options.ts";
export type { LocalMount, Mount } from "./mount-type.ts";
export {
  comparePaths,
  decodeLatin1Path,
  decodePath,
  encodePath,
  fsPath,
  type PathLike,
} from "./path-bytes.ts";
export {
  becomeSubreaper,
  type DiskSpace,
  diskSpace,
  type FileLock,
  geteuid,
  inUserNamespace,
  pidfdKill,
  pidfdOpen,
  punchHole,
  setParentDeathSignal,
  syncAll,
  syncFileSystem,
  tryLockFile,
} from "./process.ts";
export { cleanInRoot, rootPath, splitPath } from "./root-path.ts";
export {
  emptyDirAt,
  type MkdirOptions,
  openInRoot,
  type ParentDir,
  RootedFs,
  readdirFd,
  removeTree,
  removeTreeAt,
} from "./rooted-fs.ts";
export { getXattr, listXattrs, removeXattr, setXattr } from "./xattr.ts";
