import assert from "node:assert/strict";
import { globSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { must, type RunResult } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";
import { mountsBelow } from "./support/test-folder.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("daemon");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** Starts a build whose step runs for minutes, and waits until the step runs. */
async function startEndlessBuild(marker: string): Promise<{ ended: Promise<RunResult> }> {
  const context = bed.context(marker, {
    Dockerfile: `FROM busybox\nRUN echo before-${marker} > /kept\nRUN echo go-${marker}; exec sleep ${marker}\n`,
  });
  const running = Promise.withResolvers<void>();
  let seen = "";
  const ended = bed.kiln(["build", "--progress=plain", context], {
    timeoutMs: 120_000,
    onOutput: (text) => {
      seen += text;
      if (new RegExp(`^#\\d+ [\\d.]+ go-${marker}`, "m").test(seen)) running.resolve();
    },
  });
  ended.then(() => running.reject(new Error(`the build ended:\n${seen}`)), running.reject);
  await running.promise;
  return { ended };
}

/** Processes of the machine whose arguments hold a word. */
function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(word);
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (holds()) return;
    await sleep(100);
  }
  assert.fail(`never came true: ${what}`);
}

const SIMPLE = "FROM busybox\nRUN echo simple > /simple\n";

test("SIGTERM ends a running step and the daemon in order", async () => {
  const marker = "31536001";
  const build = await startEndlessBuild(marker);
  const begin = performance.now();
  assert.equal(await bed.daemon().stop(), 0);
  assert.ok(performance.now() - begin < 8000, "running steps are killed at once");
  const { code, stderr } = await build.ended;
  assert.equal(code, 1);
  assert.match(stderr, /the daemon is stopping/);
  assert.deepEqual(processesWith(marker), []);
  assert.deepEqual(mountsBelow(bed.folder), []);
  await bed.startDaemon();
  await bed.build([bed.context("simple", { Dockerfile: SIMPLE })]);
});

test("after kill -9 the next start takes away what was left and builds", async () => {
  const marker = "31536002";
  const build = await startEndlessBuild(marker);
  await bed.daemon().kill();
  assert.notEqual((await build.ended).code, 0);
  await bed.startDaemon();
  await eventually("no process is left", () => processesWith(marker).length === 0);
  await eventually("no mount is left", () => mountsBelow(bed.folder).length === 0);
  await bed.build([bed.context("simple", { Dockerfile: SIMPLE })]);
  const again = bed.context(marker, {
    Dockerfile: `FROM busybox\nRUN echo before-${marker} > /kept\nRUN cat /kept\n`,
  });
  assert.match(await bed.build([again]), new RegExp(`before-${marker}`));
});

test("a client that goes away ends its build, the daemon lives on", async () => {
  const marker = "31536003";
  const context = bed.context(marker, { Dockerfile: `FROM busybox\nRUN echo go; exec sleep ${marker}\n` });
  await assert.rejects(bed.kiln(["build", "--progress=plain", context], { timeoutMs: 8000 }), /took over/);
  await eventually("the step's process is gone", () => processesWith(marker).length === 0);
  await bed.build([bed.context("simple", { Dockerfile: SIMPLE })]);
});

test("no secret and no password of an address is kept or logged", async () => {
  const secret = "tOpSeCrEtVaLuE";
  const password = "pAsSwOrDoFaUrL";
  const file = join(bed.folder, "secret-file");
  writeFileSync(file, secret);
  const context = bed.context("secret", {
    Dockerfile: `FROM busybox
RUN --mount=type=secret,id=file --mount=type=secret,id=env,env=TOKEN wc -c < /run/secrets/file && test -n "$TOKEN"
`,
  });
  const secrets = ["--secret", `id=file,src=${file}`, "--secret", "id=env,env=TOKEN"];
  let seen = await bed.build([context, ...secrets], { env: { TOKEN: secret } });

  await using server = await serveGit(`user:${password}`);
  using listed = watchCommandLines(password);
  const host = `user:${password}@127.0.0.1:${server.port}`;
  const address = `http://${host}/project.git`;
  seen += await bed.build([address]);
  assert.ok(server.authorised() > 0);
  const failed = await bed.kiln(["build", "--progress=plain", `${address.replace("project", "absent")}`]);
  assert.notEqual(failed.code, 0);
  seen += failed.stderr;
  seen += await buildWithAddresses(host, `http://proxy-user:${password}@127.0.0.1:1`);
  assert.deepEqual(listed.found(), [], "arguments of programs show the password");

  for (const args of [
    ["history", "ls"],
    ["history", "inspect"],
    ["history", "logs"],
    ["history", "inspect", "attachment"],
    ["du", "--verbose"],
  ]) {
    const { stdout, stderr } = await bed.kiln(args, { env: { BUILDX_EXPERIMENTAL: "1" } });
    seen += stdout + stderr;
  }
  seen += bed.daemon().log();
  for (const word of [secret, password]) {
    assert.doesNotMatch(seen, new RegExp(word));
    // The user's own Dockerfile is kept as it was sent.
    const kept = await filesWith(bed.daemon().root, word);
    assert.deepEqual(
      kept.filter((file) => !file.endsWith("/fs/Dockerfile")),
      [],
    );
  }
});

/** Adds a file by an address with a password, with a proxy's password in the build arguments, provenance and caches. */
async function buildWithAddresses(host: string, proxy: string): Promise<string> {
  const context = bed.context("addresses", {
    Dockerfile: `FROM busybox
ADD http://${host}/project.git/HEAD /head
ADD http://${host}/project.git#main /tree
RUN test -n "$HTTP_PROXY" && test -n "$http_proxy" && cat /head
`,
  });
  const image = `type=oci,tar=false,dest=${join(bed.folder, "addresses")}`;
  const caches = ["--cache-to", `type=local,mode=max,dest=${join(bed.folder, "addresses-cache")}`];
  const metadata = ["--metadata-file", join(bed.folder, "addresses.json")];
  const proxies = ["--build-arg", `HTTP_PROXY=${proxy}`, "--build-arg", `http_proxy=${proxy}`];
  const attest = ["--provenance", "mode=max", "--debug"];
  const shown = await bed.build([context, "--output", image, ...caches, ...metadata, ...proxies, ...attest], {
    env: { BUILDX_METADATA_PROVENANCE: "max" },
  });
  for (const name of ["addresses", "addresses-cache", "addresses.json"]) {
    for (const word of [/\/\/user:(?!xxxxx)[^@]*@/, /proxy-user:(?!xxxxx)/].map(
      (pattern) => pattern.source,
    )) {
      const script = `find ${join(bed.folder, name)} -type f -size -200k -exec grep -laP -e '${word}' {} + || true`;
      assert.equal((await must("sh", ["-c", script])).trim(), "", name);
    }
  }
  return shown;
}

/** Looks at the arguments of all processes all the time. */
function watchCommandLines(word: string): Disposable & { found(): string[] } {
  const found = new Set<string>();
  const own = new Set([String(process.pid)]);
  const timer = setInterval(() => {
    for (const pid of readdirSync("/proc")) {
      if (!/^\d+$/.test(pid) || own.has(pid)) continue;
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        // The user's own commands say what they were told to.
        const isOurs = words.some((one) => /kiln(?:-main\.ts|\.cjs)?$/.test(one)) || words[0] === "/bin/sh";
        if (!isOurs && words.join(" ").includes(word)) found.add(words.join(" "));
      } catch {
        // It has ended meanwhile.
      }
    }
  }, 15);
  return { found: () => [...found], [Symbol.dispose]: () => clearInterval(timer) };
}

/** Files below a folder that hold a word. */
async function filesWith(folder: string, word: string): Promise<string[]> {
  const script = `grep -rlF -e ${word} ${folder} || true`;
  return (await must("sh", ["-c", script])).split("\n").filter((line) => line !== "");
}

interface GitServer extends AsyncDisposable {
  readonly port: number;
  /** How many requests came with the right name and password. */
  authorised(): number;
}

/** Serves a repository `project.git` over plain HTTP to whoever has the name and password. */
async function serveGit(credentials: string): Promise<GitServer> {
  const work = bed.context("served-git", { Dockerfile: "FROM scratch\nCOPY . /\n" });
  const bare = join(bed.folder, "served.git");
  await must("git", ["-C", work, "init", "-q", "-b", "main"]);
  await must("git", ["-C", work, "add", "."]);
  const identity = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.com"];
  await must("git", ["-C", work, ...identity, "commit", "-q", "-m", "first"]);
  await must("git", ["clone", "-q", "--bare", work, bare]);
  await must("git", ["-C", bare, "update-server-info"]);
  const files = new Map(
    globSync("**/*", { cwd: bare })
      .filter((name) => statSync(join(bare, name)).isFile())
      .map((name) => [`/project.git/${name}`, join(bare, name)]),
  );
  const wanted = `Basic ${Buffer.from(credentials).toString("base64")}`;
  let authorised = 0;
  const server = createServer((request, response) => {
    if (request.headers.authorization !== wanted) {
      response.writeHead(401, { "www-authenticate": 'Basic realm="e2e"' }).end();
      return;
    }
    authorised++;
    const file = files.get((request.url ?? "").split("?")[0] ?? "");
    if (file === undefined) response.writeHead(404).end();
    else response.end(readFileSync(file));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    authorised: () => authorised,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

test("du counts what builds keep, prune takes it away", async () => {
  const context = bed.context("du", {
    Dockerfile: "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n",
  });
  await bed.build([context]);
  const before = await bed.kiln(["du"]);
  assert.equal(before.code, 0, before.stderr);
  assert.match(before.stdout, /3(?:\.\d+)?MB/);
  const pruned = await bed.kiln(["prune", "--force", "--all"]);
  assert.equal(pruned.code, 0, pruned.stderr);
  assert.match(pruned.stdout, /Total:\s+\S+MB/);
  const left = await bed.kiln(["du"]);
  assert.match(left.stdout, /Total:\s+0B/);
  assert.doesNotMatch(await bed.build([context]), /CACHED/);
});

interface WrongBuild {
  readonly name: string;
  readonly dockerfile: string;
  readonly args?: readonly string[];
  readonly says: readonly RegExp[];
}

const WRONG: readonly WrongBuild[] = [
  {
    name: "a missing source of COPY",
    dockerfile: "FROM busybox\nCOPY nowhere.txt /\n",
    says: [/Dockerfile:2/, /2 \| >>> COPY nowhere\.txt \//, /"\/nowhere\.txt": not found/],
  },
  {
    name: "a target that isn't there",
    dockerfile: "FROM busybox AS only\n",
    args: ["--target", "onyl"],
    says: [/target stage "onyl" could not be found/],
  },
  {
    name: "a stage that isn't there",
    dockerfile: "FROM busybox AS build\nFROM scratch\nCOPY --from=biuld /bin /\n",
    says: [/docker\.io\/library\/biuld:latest: not found|biuld.*not found/],
  },
  {
    name: "a registry that doesn't answer",
    dockerfile: "FROM 127.0.0.1:1/project/app:v1\nRUN true\n",
    says: [/Dockerfile:1/, /127\.0\.0\.1:1\/project\/app:v1/, /refused/],
  },
  {
    name: "a step that fails",
    dockerfile: "FROM busybox\nRUN echo reason >&2; exit 3\n",
    says: [/Dockerfile:2/, /reason/, /did not complete successfully: exit code: 3/],
  },
  {
    name: "an unknown instruction",
    dockerfile: "FROM busybox\nRNU true\n",
    says: [/Dockerfile:2/, /unknown instruction: RNU/],
  },
];

for (const wrong of WRONG) {
  test(`an error names its place: ${wrong.name}`, async () => {
    const context = bed.context(`wrong-${WRONG.indexOf(wrong)}`, { Dockerfile: wrong.dockerfile });
    const { code, stderr } = await bed.kiln(["build", "--progress=plain", ...(wrong.args ?? []), context]);
    assert.equal(code, 1);
    for (const pattern of wrong.says) assert.match(stderr, pattern);
  });
}
