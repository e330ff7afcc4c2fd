import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openTestBed, readText, type TestBed } from "./support/test-bed.ts";

let bed: TestBed;
let context: string;

before(async () => {
  bed = await openTestBed("remote-caches");
  context = bed.context("random", {
    Dockerfile: `FROM busybox AS made
RUN head -c 32 /dev/urandom | sha256sum > /unique
COPY note /note
FROM scratch
COPY --from=made /unique /note /
`,
    note: "hello",
  });
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

/** Builds with one cache, forgets everything, and builds again from it: the random file must be the same. */
async function keeps(name: string, cacheTo: string, cacheFrom: string, output?: string): Promise<void> {
  const before = join(bed.folder, `${name}-before`);
  const image = output === undefined ? [] : [`--output=${output}`];
  await bed.build([
    "--no-cache",
    `--cache-to=${cacheTo}`,
    ...image,
    `--output=type=local,dest=${before}`,
    context,
  ]);
  const pruned = await bed.buildctl(["prune", "--all"]);
  assert.equal(pruned.code, 0, pruned.stderr);
  const after = join(bed.folder, `${name}-after`);
  const progress = await bed.build([
    `--cache-from=${cacheFrom}`,
    `--output=type=local,dest=${after}`,
    context,
  ]);
  assert.match(progress, /importing cache manifest from/);
  assert.equal(readText(after, "unique"), readText(before, "unique"), progress);
  assert.equal(readText(after, "note"), "hello");
}

test("local directories", async () => {
  const dir = join(bed.folder, "cache");
  await keeps("local", `type=local,dest=${dir},mode=max`, `type=local,src=${dir}`);
});

test("registries, in every format", async () => {
  const ref = `${bed.registry.host}/caches/app`;
  await keeps("max", `type=registry,ref=${ref}:max,mode=max`, `type=registry,ref=${ref}:max`);
  await keeps("min", `type=registry,ref=${ref}:min`, `${ref}:min`);
  const index = `type=registry,ref=${ref}:index,mode=max,image-manifest=false,compression=zstd,force-compression=true`;
  await keeps("index", index, `type=registry,ref=${ref}:index`);
});

test("images with inline caches", async () => {
  const ref = `${bed.registry.host}/images/inline:latest`;
  await keeps("inline", "type=inline", ref, `type=image,name=${ref},push=true`);
});

test("a cache that isn't there, or can't be written, is no reason to fail when asked so", async () => {
  const missing = `${bed.registry.host}/caches/missing`;
  const to = "type=registry,ref=127.0.0.1:1/x,ignore-error=true";
  const progress = await bed.build([`--cache-from=${missing}`, `--cache-to=${to}`, context]);
  assert.match(progress, /ERROR/);
  const failed = await bed.kiln([
    "build",
    "--progress=plain",
    "--cache-to=type=registry,ref=127.0.0.1:1/x",
    context,
  ]);
  assert.notEqual(failed.code, 0);
});
