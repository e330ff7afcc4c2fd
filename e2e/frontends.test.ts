import assert from "node:assert/strict";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { build as bundle } from "esbuild";
import { parseRecipe } from "../examples/frontend/src/recipe.ts";
import { unpackFromRegistry } from "./support/image-run.ts";
import { must } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

const ROOT = join(import.meta.dirname, "..");
const EXAMPLES = join(ROOT, "examples");

let bed: TestBed;

const name = (image: string): string => `${bed.registry.host}/${image}:1`;

before(async () => {
  bed = await openTestBed("frontends");
  await pushNode();
  await must(process.execPath, [join(EXAMPLES, "bundle.ts")]);
  await bed.build([join(EXAMPLES, "frontend"), "--push", "-t", name("recipe")]);
  await bed.build([join(EXAMPLES, "dockerfile-frontend"), "--push", "-t", name("dockerfile")]);
});

/** This machine's Node with the libraries that it needs, on busybox, in the place of Docker Hub's image. */
async function pushNode(): Promise<void> {
  const context = bed.context("node", { Dockerfile: "FROM busybox\nCOPY root /\n" });
  const libraries = [...(await must("ldd", [process.execPath])).matchAll(/(\/\S+) \(0x/g)].map(
    ([, path]) => path ?? "",
  );
  for (const [from, to] of [
    [process.execPath, "/usr/local/bin/node"],
    ...libraries.map((path) => [path, path]),
  ]) {
    const file = join(context, "root", to ?? "");
    mkdirSync(dirname(file), { recursive: true });
    copyFileSync(from ?? "", file);
  }
  const output = `type=image,push=true,compression=uncompressed,name=${bed.registry.host}/library/node:26-slim`;
  await bed.build([context, "--provenance=false", "--output", output]);
}

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** A recipe with its files, made from the example's. */
function recipe(folder: string, change: (text: string) => string = (text) => text): string {
  const context = join(bed.folder, "contexts", folder);
  cpSync(join(EXAMPLES, "frontend/hello"), context, { recursive: true });
  const file = join(context, "recipe.yaml");
  const text = readFileSync(file, "utf8").replace("localhost:5000/recipe", name("recipe"));
  writeFileSync(file, change(text));
  return context;
}

async function failure(args: readonly string[]): Promise<string> {
  const { code, stderr } = await bed.kiln(["build", "--progress=plain", ...args]);
  assert.notEqual(code, 0, stderr);
  return stderr;
}

test("a recipe is read to its end, whatever is in it", () => {
  const problems = (text: string): string[] =>
    parseRecipe(text).problems.map(({ message, range }) => `${range.start.line} ${message}`);
  assert.deepEqual(problems("from: a\nsteps:\n  - run: b\n"), []);
  assert.deepEqual(problems("form: a\n"), [
    "1 a recipe needs `from`, the image that it builds on",
    "1 unknown key form (did you mean from?)",
  ]);
  assert.deepEqual(problems("from: a\nsteps:\n  - run: b\n    copy: c\n  - copy: d\n  - 3\n"), [
    "3 a step has one of run, copy, write, packages, scripts",
    "5 this needs `to`, where the files go",
    "6 a step has one of run, copy, write, packages, scripts",
  ]);
  assert.match(problems("from: [a\n").join(), /Flow sequence/);
  assert.deepEqual(problems("from: &x a\nworkdir: *x\n"), ["2 this is a text"]);
  assert.deepEqual(problems("from: a\n__proto__: 1\nenv: {__proto__: b}\n"), ["2 unknown key __proto__"]);
  const bomb = `a: &a [x]\n${"bcdefgh".replace(/./g, (c, i: number) => `${c}: &${c} [*${"abcdefgh"[i]}, *${"abcdefgh"[i]}]\n`)}`;
  assert.equal(problems(`from: x\n${bomb}`).length, 8);
  assert.deepEqual(problems("x".repeat((1 << 20) + 1)).slice(0, 1), [
    "1 a recipe has at most 1048576 characters",
  ]);
});

test("a frontend of our own: an image, with arguments, packages of files, tests", async () => {
  const context = recipe("hello");
  const tag = name("hello");
  const args = ["-f", join(context, "recipe.yaml"), "--build-arg", "NAME=e2e", "--push", "-t", tag];
  const progress = await bed.build([context, ...args]);
  assert.match(progress, /\[recipe\] script 10-name\.sh/);
  const { root, config } = await unpackFromRegistry(bed.folder, tag);
  assert.equal(readFileSync(join(root, "srv/index.html"), "utf8"), "<p>Hello</p>\ne2e\n");
  assert.equal(config.config?.User, "1000");
  assert.deepEqual(config.config?.Cmd, ["httpd", "-f", "-p", "8080", "-h", "/srv"]);
  assert.deepEqual(config.config?.Labels, { "org.opencontainers.image.title": "hello to e2e" });
  assert.equal(config.history?.at(-1)?.created_by?.startsWith("run wc -l index.html"), true);

  const outline = await bed.kiln(["build", context, ...args.slice(0, 2), "--call=outline"]);
  assert.match(
    outline.stdout,
    /^TARGET: +\(default\)\nDESCRIPTION: A page, [\s\S]*NAME +world +Who is greeted\n/,
  );
});

test("a frontend of our own: named contexts, several platforms, a warning", async () => {
  const context = recipe("platforms", (text) =>
    text.replace("from: busybox:latest", "from: base").replace(/ {2}- (scripts|run)[\s\S]*?(?=image:)/, ""),
  );
  const other = bed.context("base", { "etc/made": "of files\n", "bin/keep": "" });
  const tag = name("platforms");
  const args = [
    "--platform=linux/amd64,linux/arm64",
    "--build-context",
    `base=${other}`,
    "--push",
    "-t",
    tag,
  ];
  const text = readFileSync(join(context, "recipe.yaml"), "utf8");
  writeFileSync(join(context, "recipe.yaml"), text.replace(/test:[\s\S]*/, ""));
  await bed.build([context, "-f", join(context, "recipe.yaml"), ...args]);
  for (const architecture of ["amd64", "arm64"]) {
    const { root, config } = await unpackFromRegistry(bed.folder, tag, `linux/${architecture}`);
    assert.equal(config.architecture, architecture);
    assert.equal(readFileSync(join(root, "etc/made"), "utf8"), "of files\n");
  }
  const floating = recipe("floating", (own) => own.replace("busybox:latest", "busybox"));
  const progress = await bed.build([floating, "-f", join(floating, "recipe.yaml")]);
  assert.match(progress, /FloatingBase: busybox has no tag \(line 3\)/);
});

test("a frontend of our own: mistakes, failing steps and tests are shown where they stand", async () => {
  const wrong = recipe("wrong", (text) => text.replace("workdir:", "wrokdir:").replace("${NAME}", "${NAEM}"));
  const unknown = await failure([wrong, "-f", join(wrong, "recipe.yaml")]);
  assert.match(unknown, />>> wrokdir: \/srv/);
  assert.match(unknown, /ERROR: [^\n]*unknown key wrokdir \(did you mean workdir\?\) \(line 9\)/);

  const step = recipe("step", (text) => text.replace("wc -l", "exit 7 #"));
  assert.match(await failure([step, "-f", join(step, "recipe.yaml")]), />>> +exit 7[\s\S]*exit code: 7/);

  const tested = recipe("tested", (text) => text.replace("test -s", "echo seen; test -d"));
  assert.match(
    await failure([tested, "-f", join(tested, "recipe.yaml")]),
    /test failed with exit code 1: echo seen[\s\S]*\nseen\n/,
  );
});

const DOCKERFILE = `FROM busybox AS base
ARG WHO=world
ENV A b
RUN --mount=type=cache,target=/c echo "$WHO" | tee /c/who > /who
FROM busybox
COPY --from=base --chmod=640 /who /etc/who
COPY <<EOF /etc/more
more
EOF
CMD cat /etc/who
`;

test("the Dockerfile frontend as an image does what the built-in one does", async () => {
  const context = bed.context("same", { Dockerfile: DOCKERFILE });
  const syntax = ["--build-arg", `BUILDKIT_SYNTAX=${name("dockerfile")}`];
  const results = [];
  for (const [i, own] of [[], syntax].entries()) {
    const tag = `${bed.registry.host}/same:${i}`;
    const args = ["--build-arg", "WHO=me", "--provenance=false", "--push", "-t", tag];
    const progress = await bed.build([context, ...args, ...own]);
    const { config } = await unpackFromRegistry(bed.folder, tag);
    results.push({ progress, config: JSON.stringify(config).replace(/"created":"[^"]*"/g, "") });
  }
  assert.equal(results[1]?.config, results[0]?.config);
  assert.match(results[1]?.progress ?? "", /\[base 2\/2\] RUN[^\n]*\n#\d+ CACHED/);

  for (const call of ["--check", "--call=outline", "--call=targets", "--call=subrequests.describe"]) {
    const builtin = await bed.kiln(["build", context, call]);
    const external = await bed.kiln(["build", context, call, ...syntax]);
    assert.deepEqual([external.code, external.stdout], [builtin.code, builtin.stdout], call);
    assert.notEqual(builtin.stdout, "", call);
  }
  const broken = bed.context("broken", {
    Dockerfile: `# syntax=${name("dockerfile")}\nFROM busybox\nRUNN x\n`,
  });
  assert.match(
    await failure([broken]),
    /3 \| >>> RUNN x[\s\S]*unknown instruction: RUNN \(did you mean RUN\?\)/,
  );
});

test("without grants every way to start a process refuses every privilege, in the same words", async () => {
  const folder = join(bed.folder, "contexts", "privileged");
  mkdirSync(folder, { recursive: true });
  await bundle({
    entryPoints: [join(import.meta.dirname, "support/privileged-frontend.ts")],
    outfile: join(folder, "frontend.mjs"),
    ...{ bundle: true, platform: "node", format: "esm", target: "node24", supported: { using: true } },
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  const label = "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs";
  const text = `FROM node:26-slim\nCOPY frontend.mjs /\n${label}\nENTRYPOINT ["node", "/frontend.mjs"]\n`;
  writeFileSync(join(folder, "Dockerfile"), text);
  await bed.build([folder, "--push", "-t", name("privileged")]);

  const asking = bed.context("asking", { Dockerfile: `# syntax=${name("privileged")}\nFROM busybox\n` });
  const ways = [
    "definition",
    "lazy definition",
    "definition in a file",
    "input of a frontend",
    "Dockerfile of a frontend",
    "container",
  ];
  const answersOf = async (args: readonly string[]): Promise<Map<string, string>> => {
    const said = await failure([asking, ...args]);
    const lines = said.slice(said.lastIndexOf("answers:")).split("\n").slice(1);
    return new Map(
      lines.filter((line) => line.includes(" × ")).map((line) => line.split(/: (.*)/, 2) as [string, string]),
    );
  };
  const refused = await answersOf([]);
  for (const way of ways) {
    for (const privilege of ["network.host", "security.insecure"]) {
      const answer = refused.get(`${way} × ${privilege}`)?.replace("failed to load LLB: ", "");
      assert.equal(answer, `${privilege} is not allowed`, way);
    }
  }
  assert.match(refused.get("option of a frontend × network.host") ?? "", /network\.host is not allowed/);
  for (const way of ["definition", "lazy definition", "definition in a file", "input of a frontend"]) {
    assert.match(refused.get(`${way} × network 9`) ?? "", /invalid network mode 9/, way);
    assert.match(refused.get(`${way} × security 2`) ?? "", /invalid security mode 2/, way);
    assert.match(refused.get(`${way} × security -1`) ?? "", /invalid security mode -1/, way);
    assert.match(
      refused.get(`${way} × device`) ?? "",
      /device "vendor\.example\/class=all" is not registered/,
      way,
    );
  }
  const granted = await answersOf(["--allow", "network.host"]);
  for (const way of [...ways, "option of a frontend"]) {
    assert.equal(granted.get(`${way} × network.host`), "allowed", way);
  }
  assert.match(granted.get("container × security.insecure") ?? "", /security\.insecure is not allowed/);
});

const BAD: Readonly<Record<string, { readonly script: string; readonly error: RegExp }>> = {
  silent: { script: "exit 0", error: /ERROR: [^\n]*no result for incomplete build/ },
  crash: { script: "echo no memory >&2; exit 3", error: /ERROR: [^\n]*exit code: 3: no memory/ },
  garbage: {
    script: "yes garbage; sleep 100",
    error: /ERROR: [^\n]*frontend grpc server closed unexpectedly/,
  },
  preface: {
    script: 'printf "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"; exit 0',
    error: /ERROR: [^\n]*no result for incomplete build/,
  },
  missing: { script: "", error: /ERROR: [^\n]*exit code: 1: [^\n]*\/nope/ },
};

test("frontends that crash, lie or say nothing fail the build, and leave nothing", async () => {
  for (const [kind, { script, error }] of Object.entries(BAD)) {
    const entrypoint = script === "" ? "/nope" : "/bin/frontend";
    const folder = bed.context(`bad-${kind}`, {
      frontend: `#!/bin/sh\n${script}\n`,
      Dockerfile: `FROM busybox\nCOPY --chmod=755 frontend /bin/frontend\nENTRYPOINT ["${entrypoint}"]\n`,
    });
    await bed.build([folder, "--push", "-t", name(`bad-${kind}`)]);
    const using = bed.context(`using-${kind}`, {
      Dockerfile: `# syntax=${name(`bad-${kind}`)}\nFROM busybox\n`,
    });
    assert.match(await failure([using]), error, kind);
  }
});
