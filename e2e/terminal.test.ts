import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { BIN } from "./support/kilnd.ts";
import { type RunResult, run } from "./support/run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;

before(async () => {
  bed = await openTestBed("terminal");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

const ESC = "\u001b";
/** Sets the title, the clipboard, the screen and the answerback; also with C1 codes. */
const EVIL = [
  `${ESC}]0;EVIL\u0007`,
  `${ESC}]52;c;RVZJTA==${ESC}\\`,
  `${ESC}[2J${ESC}[31;1H`,
  `${ESC}P$qm${ESC}\\`,
  `\u009b2J\u009d0;EVIL\u009c`,
  `${ESC}c\u0007\u0008\u007f`,
].join("");

/** What a terminal would act upon, apart from colours (and the marks of a hidden or new line of our own in `tty`). */
function assertHarmless(text: string, how: "plain" | "tty" = "plain"): void {
  const own = how === "tty" ? /\u001b\[(?:\d*[ABCDGKJ]|\?25[lh]|\d+;\d+[Hf]|[su78])|\u001b[78]/g : /(?!)/g;
  const rest = text.replace(/\u001b\[[0-9;:]*m/g, "").replace(own, "");
  const at = rest.search(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/);
  assert.equal(at, -1, JSON.stringify(rest.slice(Math.max(0, at - 60), at + 60)));
}

const octal = (text: string): string =>
  [...Buffer.from(text)].map((byte) => `\\\\${byte.toString(8).padStart(3, "0")}`).join("");

/** Steps that print it whole and in pieces, with bytes of a character apart, and fail in the end. */
function hostileContext(name: string): string {
  const slowly = [...Buffer.from(`${ESC}]0;EVIL\u0007é${ESC}[2J`)]
    .map((byte) => `printf '\\\\${byte.toString(8).padStart(3, "0")}'; sleep 0.05`)
    .join("; ");
  return bed.context(name, {
    Dockerfile: `FROM busybox
RUN printf 'whole ${octal(EVIL)} done\\n'; printf '\\233[2J raw \\235 0;EVIL\\n' >&2
RUN printf 'slowly '; ${slowly}; echo ' done'
RUN printf 'red \\033[31mred\\033[0m\\n' # ${EVIL}
RUN printf 'failing ${octal(EVIL)}\\n'; exit 7
`.replaceAll("\\\\", "\\"),
  });
}

/** Runs `kiln` on a terminal, whose bytes come as standard output. */
function onTerminal(args: readonly string[]): Promise<RunResult> {
  const command = [join(BIN, "kiln"), ...args].map((word) => `'${word}'`).join(" ");
  return run("script", ["-qec", `stty cols 200 rows 50; ${command}`, "/dev/null"], { env: bed.env() });
}

for (const progress of ["plain", "tty", "rawjson"] as const) {
  test(`a step's output can't control the terminal: ${progress}`, async () => {
    const context = hostileContext(`output-${progress}`);
    const args = ["build", "--no-cache", `--progress=${progress}`, context];
    const { code, stderr, stdout } = await (progress === "tty" ? onTerminal(args) : bed.kiln(args));
    assert.equal(code, 1);
    assert.match(stderr + stdout, /exit code: 7/);
    if (progress === "rawjson") {
      const lines = stderr.split("\n").filter((line) => line.startsWith("{"));
      const logs = lines.flatMap((line) => (JSON.parse(line) as { logs?: { data?: string }[] }).logs ?? []);
      const bytes = Buffer.concat(logs.map(({ data }) => Buffer.from(data ?? "", "base64")));
      assert.ok(bytes.includes(`whole ${EVIL} done`), "rawjson has what the step wrote, byte by byte");
      assert.ok(bytes.includes(Buffer.from([0x9b, ...Buffer.from("[2J raw "), 0x9d])));
      assertHarmless(stderr.replaceAll(/"(?:data|name)":"[^"]*"/g, ""), "tty");
      return;
    }
    assertHarmless(stderr + stdout, progress);
    if (progress === "plain") {
      assert.match(stderr, /whole .*done/);
      assert.match(stderr, /slowly .*é.* done/);
      assert.match(stderr, /red \u001b\[31mred\u001b\[0m/, "colours stay");
    }
  });
}

test("neither can recorded logs, names, errors and what a record says", async () => {
  const context = hostileContext(`${ESC}]0;EVIL\u0007named`);
  assert.equal((await bed.kiln(["build", "--progress=quiet", context])).code, 1);
  let seen = "";
  for (const args of [
    ["history", "ls"],
    ["history", "ls", "--no-trunc"],
    ["history", "inspect"],
    ["history", "logs"],
    ["du", "--verbose"],
  ]) {
    const { stdout, stderr } = await bed.kiln(args);
    seen += stdout + stderr;
  }
  assert.match(seen, /whole .*done/);
  assertHarmless(seen);
  const ctl = await bed.buildctl([
    "build",
    "--progress=plain",
    "--frontend=dockerfile.v0",
    `--local=context=${context}`,
    `--local=dockerfile=${context}`,
    "--no-cache",
  ]);
  assert.equal(ctl.code, 1);
  assertHarmless(ctl.stderr + ctl.stdout);
  const { stdout, stderr } = await bed.buildctl(["du", "--verbose"]);
  assertHarmless(stdout + stderr);
});

const evilBuilds: Readonly<Record<string, () => Promise<RunResult>>> = {
  "a missing file": () => buildOf("missing", `FROM busybox\nCOPY "nowhere${EVIL}" /\n`),
  "a stage's name": () => buildOf("stage", `FROM busybox AS a${EVIL}\n`),
  "an image's name": () => buildOf("image", `ARG X\nFROM $X\n`, "--build-arg", `X=busybox${EVIL}`),
  "an unknown instruction": () => buildOf("instruction", `FROM busybox\nRNU${EVIL} x\n`),
  "a warning": () =>
    buildOf(
      "warning",
      `FROM busybox\nENV PASSWORD${EVIL.replace(/[=\s]/g, "")} value\nMAINTAINER x${EVIL}\n`,
    ),
  "a target": () => buildOf("target", "FROM busybox\n", "--target", `x${EVIL}`),
  "a git reference": () => bed.kiln(["build", "--progress=plain", `http://127.0.0.1:1/x.git#r${EVIL}`]),
  "a URL": () => bed.kiln(["build", "--progress=plain", `http://127.0.0.1:1/x${EVIL}`]),
  "a file to ADD": () =>
    buildOf("add", `FROM busybox\nADD http://127.0.0.1:1/${encodeURIComponent("x")}?${EVIL} /x\n`),
  "a file's name in the context": async () => {
    const context = bed.context("names", {
      Dockerfile: "FROM busybox\nCOPY . /x\nRUN ls /x; false\n",
      [`f${EVIL.replaceAll("/", "")}`]: "",
    });
    return await bed.kiln(["build", "--progress=plain", "--no-cache", context]);
  },
  "a linter's line": () =>
    buildOf("check", `FROM busybox as x\nRUN echo ${EVIL}\nENV a ${EVIL}\n`, "--check"),
};

function buildOf(name: string, dockerfile: string, ...args: string[]): Promise<RunResult> {
  return bed.kiln(["build", "--progress=plain", ...args, bed.context(name, { Dockerfile: dockerfile })]);
}

for (const [name, build] of Object.entries(evilBuilds)) {
  test(`neither can ${name}`, async () => {
    const { stdout, stderr } = await build();
    assert.ok((stdout + stderr).length > 20);
    assertHarmless(stdout + stderr);
  });
}
