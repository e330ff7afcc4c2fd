export { DiskWriter } from "./disk-writer.ts";
export { treeOfFiles } from "./files-tree.ts";
export { type FilterOptions, type MapResult, resetHardLinks, walkFiltered } from "./filter.ts";
export { dropCovered, followLinks } from "./follow-links.ts";
export {
  GoMode,
  goModeFromPosix,
  goPermissions,
  hasGoMode,
  isGoDir,
  isGoRegular,
  isGoSymlink,
  posixFromGoMode,
} from "./mode.ts";
export { compareWirePaths } from "./order.ts";
export { Pace } from "./pace.ts";
export {
  type Change,
  type ChangeKind,
  type ContentHasher,
  type Differ,
  metadataFileName,
  type ReceiveOptions,
  receiveTree,
  sameEntry,
} from "./receiver.ts";
export { type PacketStream, type SendOptions, sendTree } from "./sender.ts";
export { joinSources, type SubSource, sourceOfDir, sourceOfTree, type TreeSource } from "./source.ts";
export { cloneStat, type SeenInodes, type Stat, statEntry } from "./stat.ts";
export { DiskTree, type FileTree, type TreeEntry, walkTree } from "./tree.ts";
export { TreeValidator } from "./validator.ts";
export { decodeStat, encodeStat, type Packet, packetCodec } from "./wire.ts";
