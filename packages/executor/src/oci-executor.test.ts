import { after } from "node:test";
import { createOciExecutor } from "./oci-executor.ts";
import { findProgram } from "./runtime-choice.ts";
import { executorSuite } from "./testing/executor-suite.ts";
import { startZygote, type Zygote } from "./zygote.ts";

const zygotes: Zygote[] = [];

for (const binary of ["crun", "runc"].filter((name) => findProgram(name) !== undefined)) {
  executorSuite(binary, (root) => {
    const zygote = startZygote();
    zygotes.push(zygote);
    return createOciExecutor({ root, zygote, binary });
  });
}

after(async () => {
  for (const zygote of zygotes) await zygote[Symbol.asyncDispose]();
});
