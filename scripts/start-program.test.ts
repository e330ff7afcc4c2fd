import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";

const folder = mkdtempSync(join(tmpdir(), "kiln-start-"));
const cacheFile = join(folder, "main.d1.cache");

before(async () => {
  await build({
    entryPoints: [join(import.meta.dirname, "start-program.ts")],
    outfile: join(folder, "program.cjs"),
    bundle: true,
    platform: "node",
    format: "cjs",
    define: {
      BODIES: JSON.stringify({ all: "main", commands: { fast: "quick" } }),
      DIGESTS: JSON.stringify({ main: "d1", quick: "d2" }),
      VERSION_TEXT: JSON.stringify("program v1\n"),
      IS_SHORT: "true",
    },
  });
  const body = (name: string): string => `(function({require,__filename}){
    function later() { return ${JSON.stringify(name)} + " " + require("node:path").basename(__filename); }
    console.log(later(), process.argv.slice(2).join(" "));
    process.exit(process.argv.includes("fail") ? 1 : 0);
  })`;
  for (const name of ["main", "quick"]) writeFileSync(join(folder, `${name}.body.cjs`), body(name));
});
after(() => rmSync(folder, { recursive: true }));

function start(...args: string[]): string {
  const { stdout, stderr } = spawnSync(process.execPath, [join(folder, "program.cjs"), ...args], {
    encoding: "utf8",
  });
  assert.equal(stderr, "");
  return stdout;
}

function caches(): string[] {
  return readdirSync(folder).filter((name) => name.includes("cache"));
}

test("the command chooses the body; global flags may stand before it", () => {
  assert.equal(start("--version"), "program v1\n");
  assert.deepEqual(caches(), []);
  assert.equal(start("--builder", "fast", "x", "fail"), "main main.body.cjs --builder fast x fail\n");
  assert.equal(start("-D", "--builder=b", "fast", "fail"), "quick quick.body.cjs -D --builder=b fast fail\n");
  assert.equal(start("constructor", "fail"), "main main.body.cjs constructor fail\n");
});

test("a run that ends well leaves a code cache, which others use; one that doesn't fit is made anew", () => {
  start("fail");
  start("--help");
  assert.deepEqual(caches(), []);
  start("x");
  assert.deepEqual(caches(), ["main.d1.cache"]);
  assert.equal(statSync(cacheFile).mode & 0o777, 0o644);
  const made = readFileSync(cacheFile);
  start("y");
  assert.deepEqual(readFileSync(cacheFile), made);
  for (const broken of [Buffer.alloc(0), made.subarray(0, 100), Buffer.alloc(made.length, 7)]) {
    writeFileSync(cacheFile, broken);
    assert.equal(start("z"), "main main.body.cjs z\n");
    assert.notDeepEqual(readFileSync(cacheFile), broken);
  }
  assert.deepEqual(caches(), ["main.d1.cache"]);
});
