import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, openSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startProgram } from "./support/program.ts";
import { freePort } from "./support/registry.ts";
import { killGroup, must, type RunOptions, run } from "./support/run.ts";
import { openTestBed, readText, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("mounts");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** Builds a Dockerfile and gives the folder that `type=local` wrote. */
async function buildLocal(
  name: string,
  files: Record<string, string>,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  const out = join(bed.folder, `out-${name}`);
  await bed.build([bed.context(name, files), "--output", `type=local,dest=${out}`, ...args], options);
  return out;
}

test("secrets are there in their step only", async () => {
  const file = join(bed.folder, "token");
  writeFileSync(file, "file-secret-value");
  const dockerfile = `FROM busybox AS build
RUN --mount=type=secret,id=token cat /run/secrets/token > /seen && stat -c %a /run/secrets/token > /mode
RUN --mount=type=secret,id=token,target=/etc/token,mode=0444,uid=33 stat -c "%a %u" /etc/token > /target
RUN --mount=type=secret,id=word,env=WORD printf %s "$WORD" | wc -c > /length
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
RUN { ls -A /run; ls -A /etc; } > /left
FROM scratch
COPY --from=build /seen /mode /target /length /left /
`;
  const args = ["--secret", `id=token,src=${file}`, "--secret", "id=word,env=E2E_WORD"];
  const out = await buildLocal("secrets", { Dockerfile: dockerfile }, args, {
    env: { E2E_WORD: "twelve-bytes" },
  });
  assert.equal(readText(out, "seen"), "file-secret-value");
  assert.equal(readText(out, "mode").trim(), "400");
  assert.equal(readText(out, "target").trim(), "444 33");
  assert.equal(readText(out, "length").trim(), "12");
  // What the mount point leaves behind is empty.
  assert.doesNotMatch(readText(out, "left"), /file-secret/);
});

test("a required secret that is missing fails the step by name", async () => {
  const context = bed.context("required", {
    Dockerfile: "FROM busybox\nRUN --mount=type=secret,id=needed,required=true true\n",
  });
  const { code, stderr } = await bed.kiln(["build", "--progress=plain", context]);
  assert.notEqual(code, 0);
  assert.match(stderr, /secret needed: not found/);
});

test("an ssh agent answers in its step", async () => {
  const socket = join(bed.folder, "agent.sock");
  const agent = startProgram("ssh-agent", ["-D", "-a", socket], {
    log: openSync(join(bed.folder, "agent.log"), "a"),
  });
  try {
    for (let i = 0; i < 100 && !existsSync(socket); i++) await sleep(100);
    const key = join(bed.folder, "key");
    await must("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f", key]);
    await must("ssh-add", [key], { env: { SSH_AUTH_SOCK: socket } });
    const files = {
      Dockerfile: `FROM busybox AS build
COPY program /
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > /socket && ssh-add -L > /keys
RUN test -z "$SSH_AUTH_SOCK"
FROM scratch
COPY --from=build /socket /keys /
`,
    };
    await copyProgram("/usr/bin/ssh-add", join(bed.context("ssh", files), "program"));
    const out = await buildLocal("ssh", files, ["--ssh", `default=${socket}`]);
    assert.equal(readText(out, "keys").trim(), readText(`${key}.pub`).trim());
    assert.match(readText(out, "socket"), /^\/run\/buildkit\/ssh_agent\.0\n$/);
  } finally {
    await agent.stop("SIGTERM");
  }
});

test("heredocs are scripts, files and programs of their own", async () => {
  const out = await buildLocal("heredocs", {
    Dockerfile: `FROM busybox AS build
ARG NAME=kiln
RUN <<EOT
set -e
first=one
echo "$first" > /one
EOT
RUN <<"EOT" sh -s extra
echo "$1" > /extra
EOT
RUN <<"EOT"
#!/bin/sh
echo "program $0" | grep -c program > /shebang
EOT
COPY <<expanded <<'literal' /files/
name=$NAME
expanded
name=$NAME
literal
COPY --chmod=640 <<-EOT /files/indented
	no tabs
EOT
FROM scratch
COPY --from=build /one /extra /shebang /
COPY --from=build /files /files
`,
  });
  assert.equal(readText(out, "one"), "one\n");
  assert.equal(readText(out, "extra"), "extra\n");
  assert.equal(readText(out, "shebang"), "1\n");
  assert.equal(readText(out, "files/expanded"), "name=kiln\n");
  assert.equal(readText(out, "files/literal"), "name=$NAME\n");
  assert.equal(readText(out, "files/indented"), "no tabs\n");
  assert.equal(statSync(join(out, "files/indented")).mode & 0o777, 0o640);
});

test("binds from stages and contexts are read-only unless asked, and leave nothing", async () => {
  const out = await buildLocal("binds", {
    "source.txt": "from the context",
    Dockerfile: `FROM busybox AS maker
RUN mkdir /made && echo made > /made/file
FROM busybox AS build
RUN --mount=type=bind,from=maker,source=/made,target=/mnt/made cat /mnt/made/file > /seen
RUN --mount=type=bind,target=/mnt/context cat /mnt/context/source.txt >> /seen
RUN --mount=type=bind,from=maker,source=/made,target=/mnt/made ! touch /mnt/made/new 2>/dev/null
RUN --mount=type=bind,from=maker,source=/made,target=/mnt/made,rw touch /mnt/made/new && ls /mnt/made > /written
RUN --mount=type=tmpfs,target=/fast,size=1m echo x > /fast/x && ! dd if=/dev/zero of=/fast/big bs=64k count=32 2>/dev/null
RUN ls -A /mnt/made /fast > /after; test ! -e /mnt/made/file
FROM scratch
COPY --from=build /seen /written /after /
`,
  });
  assert.equal(readText(out, "seen"), "made\nfrom the context");
  assert.equal(readText(out, "written"), "file\nnew\n");
  assert.doesNotMatch(readText(out, "after"), /file|new|big/);
});

test("a cache mount keeps its files between builds and stays out of the image", async () => {
  const files = {
    Dockerfile: `FROM busybox AS build
ARG ROUND
RUN --mount=type=cache,id=rounds,target=/cache,uid=33,mode=0750 echo $ROUND >> /cache/rounds && cp /cache/rounds / && stat -c "%u %a" /cache > /owner
FROM scratch
COPY --from=build /rounds /owner /
`,
  };
  await buildLocal("cache", files, ["--build-arg", "ROUND=1"]);
  const out = await buildLocal("cache", files, ["--build-arg", "ROUND=2"]);
  assert.equal(readText(out, "rounds"), "1\n2\n");
  assert.equal(readText(out, "owner"), "33 750\n");
});

test("COPY --link keeps its layer when the base changes", async () => {
  const digestOf = async (base: string): Promise<string> => {
    const context = bed.context("link", {
      file: "linked",
      Dockerfile: `FROM busybox AS one
RUN echo one > /base
FROM busybox AS two
RUN echo two > /base
FROM ${base}
COPY --link --chown=33:33 file /deep/new/file
`,
    });
    const tag = `${bed.registry.host}/link:${base}`;
    await bed.build([context, "--push", "-t", tag, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"]);
    const text = await must("skopeo", ["inspect", "--tls-verify=false", `docker://${tag}`]);
    const { Layers } = JSON.parse(text) as { Layers: string[] };
    assert.equal(Layers.length, 3);
    return Layers[2] ?? "";
  };
  assert.equal(await digestOf("one"), await digestOf("two"));
});

test("a context comes from a git server", async () => {
  const work = bed.context("git-work", {
    "app/Dockerfile": "FROM scratch\nCOPY . /\n",
    "app/hello.txt": "from git",
    "outside.txt": "not in the context",
  });
  const git = (...args: string[]) =>
    must("git", ["-C", work, "-c", "user.name=e2e", "-c", "user.email=e2e@example.com", ...args]);
  await git("init", "-q", "-b", "main");
  await git("add", ".");
  await git("commit", "-q", "-m", "first");
  await git("tag", "v1");
  writeFileSync(join(work, "app/hello.txt"), "second");
  await git("commit", "-qam", "second");
  const served = join(bed.folder, "git");
  await must("git", ["clone", "-q", "--bare", work, join(served, "project.git")]);
  const port = await freePort();
  const log = openSync(join(bed.folder, "git.log"), "a");
  const args = [
    "daemon",
    "--export-all",
    "--listen=127.0.0.1",
    `--port=${port}`,
    `--base-path=${served}`,
    served,
  ];
  const daemon = startProgram("git", args, { log });
  try {
    const url = `git://127.0.0.1:${port}/project.git`;
    await waitFor(async () => (await run("git", ["ls-remote", url])).code === 0);
    const built = async (name: string, reference: string): Promise<string> => {
      const out = join(bed.folder, name);
      await bed.build([`${url}#${reference}:app`, "--output", `type=local,dest=${out}`]);
      return out;
    };
    const tagged = await built("out-git-tag", "v1");
    assert.equal(readText(tagged, "hello.txt"), "from git");
    assert.ok(!existsSync(join(tagged, "outside.txt")));
    assert.ok(!existsSync(join(tagged, ".git")));
    assert.equal(readText(await built("out-git-main", "main"), "hello.txt"), "second");
  } finally {
    await daemon.stop("SIGTERM").finally(() => killGroup(daemon.pid));
  }
});

/** Copies a program and the libraries that it needs to the same places below a folder. */
async function copyProgram(program: string, folder: string): Promise<void> {
  const libraries = (await must("ldd", [program])).match(/\/\S+(?= \()/g) ?? [];
  for (const file of [program, ...libraries]) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    copyFileSync(file, join(folder, file));
  }
}

async function waitFor(ready: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (await ready()) return;
    await sleep(100);
  }
  throw new Error("nothing answers");
}
