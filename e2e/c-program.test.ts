import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { runImage, unpackFromRegistry } from "./support/image-run.ts";
import { gatherMachineAccess } from "./support/machine.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("c-program", { debian: true });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

const DOCKERFILE = `FROM debian:stable-slim AS toolchain
RUN --mount=type=bind,from=machine,source=/etc/apt/sources.list.d,target=/etc/apt/sources.list.d \\
    --mount=type=bind,from=machine,source=/etc/apt/apt.conf.d,target=/etc/apt/apt.conf.d \\
    --mount=type=bind,from=machine,source=/usr/share/keyrings,target=/usr/share/keyrings \\
    --mount=type=secret,id=apt-auth,target=/etc/apt/auth.conf \\
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \\
    --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    --mount=type=tmpfs,target=/var/lib/apt/lists \\
    rm -f /etc/apt/sources.list && apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev

FROM toolchain AS build
WORKDIR /src
COPY *.c *.h .
RUN gcc -O2 -static -Wall -Werror -o /program main.c words.c && /program test

FROM scratch
COPY --link --from=build /program /program
USER 65534:65534
ENTRYPOINT ["/program"]
CMD ["world"]
`;

const FILES = {
  Dockerfile: DOCKERFILE,
  "words.h": "const char *greeting(void);\n",
  "words.c": '#include "words.h"\nconst char *greeting(void) { return "hello"; }\n',
  "main.c": `#include <stdio.h>
#include <unistd.h>
#include "words.h"
int main(int argc, char **argv) {
  printf("%s %s from uid %d\\n", greeting(), argc > 1 ? argv[1] : "nobody", getuid());
  return 0;
}
`,
};

test("a C program is compiled with apt's gcc and runs from scratch", async () => {
  const machine = gatherMachineAccess(bed.folder);
  const tag = `${bed.registry.host}/c-program:latest`;
  const args = ["--network=host", "--allow=network.host", "--build-context", `machine=${machine.aptFolder}`];
  args.push(...machine.buildArgs, "--push", "-t", tag);
  await bed.build([bed.context("c", FILES), ...args]);
  const image = await unpackFromRegistry(bed.folder, tag);
  assert.deepEqual(readdirSync(image.root), ["program"]);
  const { code, stdout } = await runImage(image);
  assert.equal(stdout, "hello world from uid 65534\n");
  assert.equal(code, 0);

  const edited = { ...FILES, "words.c": FILES["words.c"].replace("hello", "good morning") };
  const progress = await bed.build([bed.context("c", edited), ...args]);
  assert.match(progress, /\[toolchain 2\/2\] RUN[^\n]*\n#\d+ CACHED/);
  const again = await runImage(await unpackFromRegistry(bed.folder, tag));
  assert.equal(again.stdout, "good morning world from uid 65534\n");
});
