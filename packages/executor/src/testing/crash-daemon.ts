// A stand-in for the daemon that is killed: starts a container that sleeps, says so, and waits.
import { createOciExecutor } from "../oci-executor.ts";
import { startZygote } from "../zygote.ts";
import { bindRoot } from "./executor-suite.ts";

const [root = "", rootfs = "", marker = ""] = process.argv.slice(2);
const executor = await createOciExecutor({ root, zygote: startZygote() });
await executor.run({
  rootfs: bindRoot(rootfs),
  mounts: [{ kind: "tmpfs", dest: "/t", readonly: false, sizeBytes: 0n }],
  process: {
    args: ["sh", "-c", `setsid sleep ${marker} & sleep ${marker}`],
    env: ["PATH=/bin"],
    user: "",
    cwd: "/",
    tty: false,
  },
  sandbox: {},
  io: { started: () => setTimeout(() => console.log("started"), 300) },
  signal: new AbortController().signal,
});
