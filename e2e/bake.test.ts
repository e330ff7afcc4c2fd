import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startKilnd } from "./support/kilnd.ts";
import { freePort } from "./support/registry.ts";
import { killGroup, must, type RunOptions, type RunResult, start } from "./support/run.ts";
import { openTestBed, readText, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("bake");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** Runs `kiln bake` in a folder that holds a definition and other files. */
function bake(folder: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return bed.kiln(["bake", "--progress=plain", ...args], { cwd: folder, ...options });
}

async function mustBake(folder: string, args: readonly string[], options?: RunOptions): Promise<string> {
  const result = await bake(folder, args, options);
  assert.equal(result.code, 0, result.stderr);
  return result.stderr;
}

function count(text: string, pattern: RegExp): number {
  return [...text.matchAll(new RegExp(pattern, "g"))].length;
}

const LINKED = `
group "default" { targets = ["app", "tool"] }
target "base" {
  dockerfile-inline = "FROM busybox\\nENV GREETING=hello\\nRUN echo base-ran > /base.txt"
}
target "empty" {
  dockerfile-inline = "FROM scratch"
}
target "app" {
  contexts = { start = "target:base", again = "target:base" }
  dockerfile-inline = "FROM start AS b\\nRUN echo $GREETING > /app.txt\\nFROM scratch\\nCOPY --from=b /app.txt /\\nCOPY --from=again /base.txt /"
  output = ["type=local,dest=out/app"]
}
target "tool" {
  contexts = { start = "target:base", nothing = "target:empty" }
  dockerfile-inline = "FROM start AS b\\nFROM nothing\\nCOPY --from=b /base.txt /tool.txt"
  output = ["type=local,dest=out/tool"]
}
`;

test("linked targets take each other's results; what they share runs once", async () => {
  const folder = bed.context("linked", { "docker-bake.hcl": LINKED });
  const progress = await mustBake(folder, ["--metadata-file", "metadata.json"]);
  assert.equal(readText(folder, "out/app/app.txt"), "hello\n");
  assert.equal(readText(folder, "out/app/base.txt"), "base-ran\n");
  assert.equal(readText(folder, "out/tool/tool.txt"), "base-ran\n");
  const steps = new Set(
    [...progress.matchAll(/^#(\d+) \[\w+ 2\/2\] RUN echo base-ran/gm)].map(([, id]) => id),
  );
  assert.equal(steps.size, 1, progress);
  assert.match(progress, /^#\d+ \[app /m);
  assert.match(progress, /^#\d+ \[tool /m);
  const metadata = JSON.parse(readText(folder, "metadata.json")) as Record<string, Record<string, unknown>>;
  assert.deepEqual(Object.keys(metadata).sort(), ["app", "base", "empty", "tool"]);
  for (const result of Object.values(metadata)) {
    assert.match(String(result["buildx.build.ref"]), /^e2e\/e2e0\/[a-z0-9]{25}$/);
  }
});

test("one at a time, linked targets build just the same", async () => {
  const folder = bed.context("one-by-one", { "docker-bake.hcl": LINKED });
  await mustBake(folder, ["-j", "1"]);
  assert.equal(readText(folder, "out/app/app.txt"), "hello\n");
  assert.equal(readText(folder, "out/tool/tool.txt"), "base-ran\n");
});

const PLATFORMS = `
target "base" {
  platforms = ["linux/amd64", "linux/386"]
  dockerfile-inline = "FROM scratch\\nARG TARGETARCH\\nENV FOR=$TARGETARCH\\nCOPY f.txt /base-$TARGETARCH.txt"
}
target "app" {
  platforms = ["linux/amd64", "linux/386"]
  contexts = { start = "target:base" }
  dockerfile-inline = "FROM start\\nCOPY f.txt /app-$FOR.txt"
}
target "native" {
  contexts = { start = "target:base" }
  dockerfile-inline = "FROM start\\nCOPY f.txt /app-$FOR.txt"
}
`;

test("links between targets for several platforms", async () => {
  const folder = bed.context("platforms", { "docker-bake.hcl": PLATFORMS, "f.txt": "f\n" });
  await mustBake(folder, [
    "app",
    "native",
    "--set",
    "app.output=out/app",
    "--set",
    "native.output=out/native",
  ]);
  assert.deepEqual(readdirSync(join(folder, "out/app/linux_386")).sort(), ["app-386.txt", "base-386.txt"]);
  assert.deepEqual(readdirSync(join(folder, "out/app/linux_amd64")).sort(), [
    "app-amd64.txt",
    "base-amd64.txt",
  ]);
  assert.equal(readdirSync(join(folder, "out/native")).length, 2);
});

const FAILING = `
group "default" { targets = ["good", "bad", "user"] }
target "good" {
  dockerfile-inline = "FROM busybox AS b\\nRUN sleep 3 && echo good > /good.txt\\nFROM scratch\\nCOPY --from=b /good.txt /"
  output = ["out/good"]
}
target "bad" {
  dockerfile-inline = "FROM busybox\\nRUN echo about-to-fail && exit 7"
  output = ["out/bad"]
}
target "user" {
  contexts = { start = "target:bad" }
  dockerfile-inline = "FROM start"
}
`;

test("a failure names its target; how it counts for others is the user's choice", async () => {
  const folder = bed.context("failing", { "docker-bake.hcl": FAILING });
  const args = ["--metadata-file", "metadata.json"];
  const fast = await bake(folder, args);
  assert.equal(fast.code, 1);
  assert.match(fast.stderr, /^ERROR: target bad: failed to solve: process .* exit code: 7$/m);
  assert.ok(!existsSync(join(folder, "out/good")));
  assert.ok(!existsSync(join(folder, "metadata.json")));

  const deferredOutput = await bake(folder, ["-j", "defer-output", ...args]);
  assert.equal(deferredOutput.code, 1);
  assert.ok(!existsSync(join(folder, "out/good")));

  const deferred = await bake(folder, ["-j", "defer-error", ...args]);
  assert.equal(deferred.code, 1);
  assert.match(deferred.stderr, /^ERROR: target bad: failed to solve: process .* exit code: 7$/m);
  assert.match(deferred.stderr, /^target user: .*not built: target bad failed$/m);
  assert.equal(readText(folder, "out/good/good.txt"), "good\n");
  assert.ok(!existsSync(join(folder, "out/bad")));
  const metadata = JSON.parse(readText(folder, "metadata.json")) as Record<string, unknown>;
  assert.deepEqual(Object.keys(metadata), ["good"]);

  const limited = await bake(folder, ["-j", "defer-output,parallel=2", ...args]);
  assert.equal(limited.code, 1);
  assert.match(limited.stderr, /defer-output needs 3 targets at a time, but the limit is 2/);
});

test("a context that several targets have in common is sent once", async () => {
  const size = 4_000_000;
  const target = (name: string, step: string): string => `target "${name}" {
    context = "ctx"
    dockerfile-inline = "FROM busybox\\nCOPY . /all\\nRUN echo ${step}"
  }\n`;
  const folder = bed.context("shared", {
    "docker-bake.hcl": `group "default" { targets = ["a", "b", "c"] }\n${target("a", "1")}${target("b", "2")}${target("c", "3")}`,
  });
  mkdirSync(join(folder, "ctx"));
  writeFileSync(join(folder, "ctx/big.bin"), Buffer.alloc(size, Math.random().toString()));
  const { stderr, code } = await bed.kiln(["bake", "--progress=rawjson"], { cwd: folder });
  assert.equal(code, 0, stderr);
  const sent = new Set<string>();
  for (const line of stderr.split("\n").filter((text) => text.startsWith("{"))) {
    const { statuses = [] } = JSON.parse(line) as {
      statuses?: { id: string; vertex: string; current?: number }[];
    };
    for (const { id, vertex, current = 0 } of statuses) {
      if (id.startsWith("transferring context") && current > size) sent.add(vertex);
    }
  }
  assert.equal(sent.size, 1);
  // Nothing has changed: nothing is sent.
  const again = await mustBake(folder, []);
  assert.equal(count(again, /transferring context: 4\.\d+MB/), 0, again);
});

test("nodes for different platforms push one index", async () => {
  const folder = bed.context("nodes", { "docker-bake.hcl": PLATFORMS, "f.txt": "f\n" });
  const second = join(bed.folder, "second");
  mkdirSync(second);
  await using other = await startKilnd(second, bed.registry.host);
  const create = (address: string, platform: string, ...more: string[]): Promise<RunResult> =>
    bed.kiln(["create", "--name=nodes", "--driver=remote", `--platform=${platform}`, ...more, address]);
  assert.equal((await create(bed.daemon().address, "linux/amd64")).code, 0);
  assert.equal((await create(other.address, "linux/386", "--append")).code, 0);
  const name = `${bed.registry.host}/nodes/app`;
  const { code, stderr } = await bed.kiln(
    ["--builder=nodes", "bake", "--progress=plain", "app", "--push", "--provenance=false"].concat(
      ["1", "2"].map((tag) => `--set=app.tags=${name}:${tag}`),
      "--metadata-file=metadata.json",
    ),
    { cwd: folder },
  );
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^#\d+ merging manifest list .*\/nodes\/app:1,.*\/nodes\/app:2$/m);
  const raw = await must("skopeo", ["inspect", "--raw", "--tls-verify=false", `docker://${name}:2`]);
  const { manifests } = JSON.parse(raw) as { manifests: { platform: { architecture: string } }[] };
  assert.deepEqual(manifests.map(({ platform }) => platform.architecture).sort(), ["386", "amd64"]);
  const metadata = JSON.parse(readText(folder, "metadata.json")) as { app: Record<string, string> };
  assert.deepEqual(Object.keys(metadata.app), ["containerimage.digest"]);
  const archive = await bake(folder, ["app", "--set=app.output=type=oci,dest=x.tar"], {
    env: { BUILDX_BUILDER: "nodes" },
  });
  assert.equal(archive.code, 1);
  assert.match(archive.stderr, /oci for multi-node builds currently not supported/);
});

test("a definition in a git repository, with contexts there and here", async () => {
  const folder = bed.context("remote", {
    "repository/docker-bake.hcl": `
      group "default" { targets = ["root", "sub", "here"] }
      target "root" {
        dockerfile-inline = "FROM scratch\\nCOPY root.txt /"
        output = ["out/root"]
      }
      target "sub" {
        context = "sub"
        contexts = { lib = "lib" }
        output = ["out/sub"]
      }
      target "here" {
        context = BAKE_CMD_CONTEXT
        dockerfile-inline = "FROM scratch\\nCOPY mine.txt /"
        output = ["out/here"]
      }`,
    "repository/root.txt": "root\n",
    "repository/sub/Dockerfile": "FROM scratch\nCOPY sub.txt /\nCOPY --from=lib lib.txt /\n",
    "repository/sub/sub.txt": "sub\n",
    "repository/lib/lib.txt": "lib\n",
    "work/mine.txt": "mine\n",
    "work/more.hcl": 'target "root" { labels = { a = "b" } }\n',
  });
  const repository = join(folder, "repository");
  const git = (...args: string[]): Promise<string> =>
    must("git", ["-C", repository, "-c", "user.name=e2e", "-c", "user.email=e2e@example.com", ...args]);
  await git("init", "-q", "-b", "main");
  await git("add", ".");
  await git("commit", "-q", "-m", "one");
  const port = await freePort();
  const server = start("git", [
    "daemon",
    "--export-all",
    `--base-path=${folder}`,
    "--listen=127.0.0.1",
    `--port=${port}`,
  ]);
  try {
    const url = `git://127.0.0.1:${port}/repository/.git#main`;
    const work = join(folder, "work");
    for (let attempt = 0; ; attempt++) {
      const { code } = await bake(work, [url, "--print"]);
      if (code === 0) break;
      assert.ok(attempt < 20, "git daemon doesn't answer");
    }
    await mustBake(work, [url]);
    assert.equal(readText(work, "out/root/root.txt"), "root\n");
    assert.equal(readText(work, "out/sub/sub.txt"), "sub\n");
    assert.equal(readText(work, "out/sub/lib.txt"), "lib\n");
    assert.equal(readText(work, "out/here/mine.txt"), "mine\n");
    const printed = await bake(work, [
      url,
      "-f",
      "docker-bake.hcl",
      "-f",
      "cwd://more.hcl",
      "--print",
      "root",
    ]);
    const { target } = JSON.parse(printed.stdout) as {
      target: { root: { labels: unknown; context: string } };
    };
    assert.deepEqual(target.root.labels, { a: "b" });
    assert.equal(target.root.context, url);
  } finally {
    killGroup(server.pid);
  }
});

test("rights that a definition asks for must be granted", async () => {
  const folder = bed.context("rights", {
    "docker-bake.hcl": `target "default" {
      dockerfile-inline = "FROM scratch\\nCOPY f.txt /"
      output = ["../out-of-folder"]
    }`,
    "f.txt": "f\n",
  });
  const refused = await bake(folder, []);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^ - Write access to path \.\.$/m);
  assert.match(refused.stderr, /^ERROR: additional privileges requested$/m);
  const outside = join(folder, "../out-of-folder");
  assert.ok(!existsSync(outside));
  await mustBake(folder, ["--allow=fs.write=.."]);
  assert.equal(readFileSync(join(outside, "f.txt"), "utf8"), "f\n");
  rmSync(outside, { recursive: true });
});
