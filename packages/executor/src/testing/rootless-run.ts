// Runs a container as whoever it is started by; see rootless.test.ts.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createOciExecutor } from "../oci-executor.ts";
import { startZygote } from "../zygote.ts";
import { makeBusyboxRoot } from "./busybox-root.ts";
import { runIn } from "./executor-suite.ts";

const dir = process.argv[2] ?? "";
const zygote = startZygote();
const executor = await createOciExecutor({ root: join(dir, "state"), zygote, rootless: true });
const rootfs = join(dir, "rootfs");
mkdirSync(rootfs);
const { stdout, code } = await runIn(executor, makeBusyboxRoot(rootfs), "id; exit 3");
console.log(`${stdout}code ${code}`);
await zygote[Symbol.asyncDispose]();
