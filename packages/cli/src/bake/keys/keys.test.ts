import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { readBake, readBakeFiles } from "@kiln/bake";
import { errorMessage } from "@kiln/base";
import { nodeBakeHost } from "../../bake-host.ts";
import type { CommandContext } from "../../command/command.ts";
import { FlagValues } from "../../command/flags.ts";
import { answerKeys } from "./answer-keys.ts";

const root = mkdtempSync(join(tmpdir(), "kiln-keys-"));
after(() => rmSync(root, { recursive: true }));
let count = 0;

const GIT_ENV = {
  PATH: process.env.PATH,
  HOME: root,
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "n",
  GIT_AUTHOR_EMAIL: "n@example.com",
  GIT_COMMITTER_NAME: "n",
  GIT_COMMITTER_EMAIL: "n@example.com",
};

type Files = Readonly<Record<string, string>>;

/** A folder with a definition, in a repository with one commit. */
class Project {
  readonly dir = join(root, `project-${count++}`);

  constructor(files: Files) {
    this.write(files);
    this.git("init", "-q");
    this.commit();
  }

  write(files: Files): void {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(this.dir, name)), { recursive: true });
      writeFileSync(join(this.dir, name), text);
    }
  }

  git(...args: readonly string[]): void {
    execFileSync("git", args, { cwd: this.dir, env: GIT_ENV });
  }

  commit(): void {
    this.git("add", "-A");
    this.git("commit", "-q", "--allow-empty", "-m", "x");
  }

  /** What `bake --keys=json` or `--changed-since=… --keys=json` prints. */
  async ask(
    given: { since?: string; targets?: readonly string[]; set?: readonly string[]; at?: string } = {},
  ): Promise<Answer> {
    const { since, targets = [], set = [], at = "." } = given;
    const cwd = join(this.dir, at);
    const host = nodeBakeHost({ cwd, env: GIT_ENV, localPlatform: "linux/amd64" });
    const load = (other: typeof host) =>
      Promise.resolve({ files: readBakeFiles([], other, () => new Uint8Array()) });
    const options = { targets, set };
    const outcome = readBake((await load(host)).files, host, options);
    assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
    const question =
      since === undefined
        ? ({ kind: "keys", format: "json" } as const)
        : ({ kind: "changes", revision: since, format: "json" } as const);
    const ctx = {
      terminal: { env: GIT_ENV },
      flags: new FlagValues([]),
      signal: new AbortController().signal,
    };
    const text = await answerKeys(ctx as unknown as CommandContext, {
      question,
      plan: outcome.value,
      host,
      options,
      load,
      warn: () => undefined,
      url: "",
    });
    return JSON.parse(text) as Answer;
  }

  /** `name: reasons` of what changed since the last commit. */
  async changes(given: { targets?: readonly string[]; since?: string; at?: string } = {}): Promise<string[]> {
    const { target } = await this.ask({ since: "HEAD", ...given });
    return Object.entries(target)
      .filter(([, { change }]) => change !== "unchanged")
      .map(
        ([name, { change, reasons = [] }]) => `${name}: ${[change, ...reasons.map(reasonText)].join(" ")}`,
      );
  }

  async keys(set: readonly string[] = []): Promise<Record<string, string>> {
    const { target } = await this.ask({ set });
    return Object.fromEntries(Object.entries(target).map(([name, { key }]) => [name, key]));
  }
}

interface Answer {
  readonly target: Readonly<
    Record<
      string,
      {
        key: string;
        change?: string;
        reasons?: readonly Record<string, unknown>[];
        note?: string;
        files?: number;
      }
    >
  >;
}

function reasonText({ kind, ...rest }: Record<string, unknown>): string {
  return [kind, ...Object.values(rest).flat()].join("=");
}

const MONOREPO: Files = {
  "docker-bake.hcl": `
group "default" { targets = ["api", "web"] }
target "base" { context = "base" }
target "api" {
  dockerfile = "api/Dockerfile"
  contexts = { base = "target:base" }
  args = { VERSION = "1", UNUSED = "x" }
  tags = ["api:1"]
}
target "web" { context = "web" }
`,
  "base/Dockerfile": "FROM alpine:3.20\nCOPY base.txt /\n",
  "base/base.txt": "base",
  "api/Dockerfile":
    "# syntax=docker/dockerfile:1\nFROM base\nARG VERSION\nRUN echo $VERSION\nCOPY api/*.go lib /src/\n",
  "api/main.go": "package main",
  "lib/lib.go": "package lib",
  "web/Dockerfile": "FROM nginx\nCOPY . /html\n",
  "web/index.html": "<p>",
  "web/.dockerignore": "*.log\nDockerfile\n",
  ".gitignore": "generated/\n",
};

test("nothing changed: nothing would change", async () => {
  const project = new Project(MONOREPO);
  assert.deepEqual(await project.changes(), []);
});

test("what the Dockerfiles can't read doesn't count", async () => {
  const project = new Project(MONOREPO);
  project.write({
    "web/debug.log": "ignored by .dockerignore",
    "api/README.md": "not copied",
    "api/Dockerfile": `# a comment\n${MONOREPO["api/Dockerfile"]}`.replace(
      "# a comment\n# syntax",
      "# syntax",
    ),
    "web/Dockerfile": "FROM nginx\n# explained\nCOPY . /html\n",
    "lib/generated/x.go": "ignored by git",
    "other.txt": "elsewhere",
  });
  utimesSync(join(project.dir, "api/main.go"), 1, 1);
  chmodSync(join(project.dir, "lib/lib.go"), 0o600);
  mkdirSync(join(project.dir, "web/empty"));
  assert.deepEqual(await project.changes(), []);
});

test("a file changes the targets that use it, and those that link to them", async () => {
  const project = new Project(MONOREPO);
  project.write({ "api/main.go": "changed" });
  assert.deepEqual(await project.changes(), ["api: changed file=api/main.go=modified"]);
  project.commit();
  project.write({ "base/base.txt": "changed" });
  assert.deepEqual(await project.changes(), [
    "api: changed target=base",
    "base: changed file=base/base.txt=modified",
  ]);
  project.commit();
  project.write({ "lib/deep/new.go": "new" });
  rmSync(join(project.dir, "api/main.go"));
  renameSync(join(project.dir, "web/index.html"), join(project.dir, "web/start.html"));
  assert.deepEqual(await project.changes(), [
    "api: changed file=api/main.go=removed file=lib/deep/new.go=added",
    "web: changed file=web/index.html=removed file=web/start.html=added",
  ]);
  assert.deepEqual(await project.changes({ targets: ["web"] }), [
    "web: changed file=web/index.html=removed file=web/start.html=added",
  ]);
  assert.deepEqual(await project.changes({ since: "HEAD~1", targets: ["base"] }), [
    "base: changed file=base/base.txt=modified",
  ]);
});

test("types of files count", async () => {
  const project = new Project(MONOREPO);
  chmodSync(join(project.dir, "api/main.go"), 0o755);
  rmSync(join(project.dir, "web/index.html"));
  symlinkSync("elsewhere", join(project.dir, "web/index.html"));
  assert.deepEqual(await project.changes(), [
    "api: changed file=api/main.go=modified",
    "web: changed file=web/index.html=modified",
  ]);
  project.commit();
  rmSync(join(project.dir, "web/index.html"));
  project.write({ "web/index.html/inner": "a directory now" });
  assert.deepEqual(await project.changes(), [
    "web: changed file=web/index.html=removed file=web/index.html/inner=added",
  ]);
  project.commit();
  rmSync(join(project.dir, "web/index.html"), { recursive: true });
  symlinkSync("../api", join(project.dir, "web/index.html"));
  assert.deepEqual(await project.changes(), [
    "web: changed file=web/index.html=added file=web/index.html/inner=removed",
  ]);
});

test("ignore files count by what they leave", async () => {
  const project = new Project({ ...MONOREPO, "web/a.tmp": "x" });
  project.write({ "web/.dockerignore": "*.log\nDockerfile\n*.tmp\n" });
  assert.deepEqual(await project.changes(), [
    "web: changed file=web/.dockerignore=modified file=web/a.tmp=removed",
  ]);
});

test("Dockerfiles, base images and arguments count as far as they decide something", async () => {
  const project = new Project(MONOREPO);
  project.write({ "api/Dockerfile": MONOREPO["api/Dockerfile"]!.replace("echo", "printf") });
  assert.deepEqual(await project.changes(), ["api: changed dockerfile"]);
  project.git("checkout", "-q", ".");
  project.write({ "base/Dockerfile": MONOREPO["base/Dockerfile"]!.replace("3.20", "3.21") });
  assert.deepEqual(await project.changes(), [
    "api: changed target=base",
    "base: changed dockerfile image=alpine:3.21=alpine:3.20",
  ]);
  project.git("checkout", "-q", ".");
  const text = MONOREPO["docker-bake.hcl"]!;
  project.write({ "docker-bake.hcl": text.replace('UNUSED = "x"', 'UNUSED = "y"') });
  assert.deepEqual(await project.changes(), []);
  project.write({
    "docker-bake.hcl": text.replace('VERSION = "1"', 'VERSION = "2"').replace("api:1", "api:2"),
  });
  assert.deepEqual(await project.changes(), ["api: changed attribute=args.VERSION attribute=tags"]);
});

test("targets come, go and are renamed", async () => {
  const project = new Project(MONOREPO);
  project.write({
    "docker-bake.hcl": `${MONOREPO["docker-bake.hcl"]!.replaceAll('"web"', '"site"').replace('context = "site"', 'context = "web"')}
target "more" { dockerfile-inline = "FROM scratch" }
`,
  });
  assert.deepEqual(await project.changes({ targets: ["default", "more"] }), [
    "more: changed new",
    "site: changed renamed=web",
    "web: removed",
  ]);
  const fresh = new Project({ "README.md": "no definition yet" });
  fresh.write(MONOREPO);
  assert.deepEqual(await fresh.changes(), ["api: changed new", "base: changed new", "web: changed new"]);
});

test("a revision that can't be built is told", async () => {
  const project = new Project({ ...MONOREPO, "docker-bake.hcl": 'target "default" {' });
  project.write(MONOREPO);
  const [first = ""] = await project.changes({ targets: ["web"] });
  assert.match(first, /^web: changed before=docker-bake\.hcl:1/);
});

test("conflicts count as changes", async () => {
  const project = new Project(MONOREPO);
  project.git("checkout", "-q", "-b", "other");
  project.write({ "api/main.go": "theirs" });
  project.commit();
  project.git("checkout", "-q", "-");
  project.write({ "api/main.go": "mine" });
  project.commit();
  assert.throws(() => project.git("merge", "-q", "other"));
  assert.deepEqual(await project.changes(), ["api: changed file=api/main.go=modified"]);
});

test("a definition in a folder of the repository", async () => {
  const nested = Object.fromEntries(Object.entries(MONOREPO).map(([name, text]) => [`sub/${name}`, text]));
  const project = new Project(nested);
  project.write({ "sub/base/base.txt": "changed", "elsewhere.txt": "x" });
  assert.deepEqual(await project.changes({ at: "sub" }), [
    "api: changed target=base",
    "base: changed file=base/base.txt=modified",
  ]);
});

test("revisions that aren't commits are refused, and none is an option of git", async () => {
  const project = new Project(MONOREPO);
  for (const since of [
    "",
    "nothing",
    "--output=pwned",
    "-h",
    "HEAD:api",
    "HEAD..HEAD",
    "HEAD\nHEAD",
    "HEAD^{tree}",
  ]) {
    await assert.rejects(project.ask({ since }), (error) => {
      assert.equal(errorMessage(error), `invalid git revision ${JSON.stringify(since)}: no such commit`);
      return true;
    });
  }
  rmSync(join(project.dir, ".git"), { recursive: true });
  await assert.rejects(
    project.ask({ since: "HEAD" }),
    /^BuildError: --changed-since needs a git repository at /,
  );
});

test("keys are those of the content, wherever it lies", async () => {
  const [one, two] = [new Project(MONOREPO), new Project(MONOREPO)];
  const keys = await one.keys();
  assert.deepEqual(await two.keys(), keys);
  assert.equal(new Set(Object.values(keys)).size, 3);
  for (const key of Object.values(keys)) assert.match(key, /^sha256:[0-9a-f]{64}$/);
  const changed = async (...set: readonly string[]): Promise<string[]> => {
    const other = await one.keys(set);
    return Object.keys(keys).filter((name) => other[name] !== keys[name]);
  };
  assert.deepEqual(
    await changed("*.tags=x", "*.output=type=image,push=true", "*.no-cache=true", "*.pull=true"),
    [],
  );
  assert.deepEqual(await changed("*.cache-to=type=inline", "*.cache-from=type=gha"), []);
  assert.deepEqual(await changed("*.labels.a=b"), ["api", "base", "web"]);
  assert.deepEqual(await changed("api.args.VERSION=3"), ["api"]);
  assert.deepEqual(await changed("base.platform=linux/arm64"), ["api", "base"]);
  assert.deepEqual(await changed("web.attest=type=sbom"), ["web"]);
  assert.deepEqual(await changed("api.network=none"), ["api"]);
});

test("what can't be known counts as a whole", async () => {
  const project = new Project({
    "docker-bake.hcl": `
target "foreign" { dockerfile = "foreign.Dockerfile" }
target "unknown" { dockerfile = "unknown.Dockerfile" }
target "remote" { context = "https://example.com/repo.git#main" }
target "inline" { dockerfile-inline = "FROM scratch\\nCOPY a /" }
target "silent" { dockerfile-inline = "# check=skip=all\\nFROM busybox\\nCOPY $FROM_BASE/a /" }
`,
    "foreign.Dockerfile": "# syntax=example.com/frontend:1\nwhatever\n",
    "unknown.Dockerfile": "FROM busybox\nCOPY $FROM_BASE/a /\n",
    a: "a",
    b: "b",
    ".dockerignore": "c\n",
  });
  const targets = ["foreign", "unknown", "remote", "inline", "silent"];
  const { target } = await project.ask({ targets });
  assert.match(target.foreign!.note!, /example\.com\/frontend:1 can't be run here/);
  assert.match(target.unknown!.note!, /variables that are unknown/);
  assert.match(target.silent!.note!, /variables that are unknown/);
  assert.match(target.remote!.note!, /remote/);
  assert.equal(target.inline!.files, 1);
  project.write({ b: "changed", c: "ignored" });
  assert.deepEqual(await project.changes({ targets }), [
    "foreign: changed file=b=modified",
    "silent: changed file=b=modified",
    "unknown: changed file=b=modified",
  ]);
});

test("mistakes name their target", async () => {
  const project = new Project({
    "docker-bake.hcl":
      'target "default" {}\ntarget "lost" { context = "nowhere" }\ntarget "bad" { dockerfile-inline = "FRON x" }',
  });
  await assert.rejects(
    project.ask(),
    /target default: failed to read dockerfile: open Dockerfile: no such file/,
  );
  await assert.rejects(
    project.ask({ targets: ["lost"] }),
    /target lost: unable to prepare context: path "nowhere" not found/,
  );
  await assert.rejects(project.ask({ targets: ["bad"] }), /target bad: .*unknown instruction: FRON/);
});
