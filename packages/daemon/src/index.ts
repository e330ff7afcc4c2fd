export { type DaemonConfig, loadConfig } from "./config/config.ts";
export { runDaemon } from "./run-daemon.ts";
