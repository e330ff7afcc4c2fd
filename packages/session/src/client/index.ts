export { makeDirs } from "../make-dirs.ts";
export type { Attachable } from "./attachable.ts";
export { type AuthOptions, AuthProvider, type RegistryLogin } from "./auth.ts";
export { ContentProvider } from "./content.ts";
export {
  type ExporterCallbacks,
  type ExporterChoice,
  ExporterProvider,
  type PolicyCheck,
  PolicyProvider,
} from "./exporter.ts";
export { FileSendTarget, type FileSink, type SendTarget } from "./file-send.ts";
export { asRoot, FileSyncProvider, type SharedDir, type SyncProgress } from "./file-sync.ts";
export {
  type ClientSession,
  openSession,
  openSessionOver,
  type SessionDial,
  type SessionOptions,
  type SessionStream,
} from "./open-session.ts";
export {
  fetchTokenByGet,
  fetchTokenByPost,
  type HostTls,
  type Token,
  type TokenRequest,
} from "./registry-token.ts";
export { SecretsProvider } from "./secrets.ts";
export { type SshAgentConfig, SshProvider } from "./ssh.ts";
export { UploadProvider } from "./upload.ts";
