import assert from "node:assert/strict";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { runImage, type UnpackedImage, unpackFromRegistry } from "./support/image-run.ts";
import { openTestBed, type TestBed } from "./support/test-bed.ts";

/** What a file of an image has to be like; what isn't given doesn't matter. */
interface ExpectedFile {
  readonly absent?: boolean;
  readonly directory?: boolean;
  readonly text?: string;
  readonly contains?: string;
  /** Permission bits in octal. */
  readonly mode?: string;
  /** `uid:gid` */
  readonly owner?: string;
  /** Target of a symbolic link. */
  readonly link?: string;
}

/** One build of a folder's Dockerfile. */
interface ExpectedBuild {
  /** Arguments of `kiln build`; `{context}` is the folder. */
  readonly args: readonly string[];
  /** The platform that is pulled, when it isn't the machine's. */
  readonly platform?: string;
  readonly files: Readonly<Record<string, ExpectedFile>>;
  /** Folder → all that is below it. */
  readonly tree?: Readonly<Record<string, readonly string[]>>;
  /** Fields of the image's `config`; null for one that must be missing. */
  readonly config: Readonly<Record<string, unknown>>;
  /** What the image's own command prints. */
  readonly runs?: string;
}

const FOLDER = join(import.meta.dirname, "dockerfiles");
const NAMES = readdirSync(FOLDER).sort();

let bed: TestBed;

before(async () => {
  bed = await openTestBed("dockerfiles");
});

after(async () => {
  await bed?.[Symbol.asyncDispose]();
});

function buildsOf(name: string): readonly ExpectedBuild[] {
  const text = readFileSync(join(FOLDER, name, "expectations.json"), "utf8");
  return (JSON.parse(text) as { builds: ExpectedBuild[] }).builds;
}

/** Builds and pushes; gives the image's name and the progress. */
async function push(name: string, index: number): Promise<{ tag: string; progress: string }> {
  const context = join(FOLDER, name);
  const args = (buildsOf(name)[index]?.args ?? []).map((arg) => arg.replace("{context}", context));
  const tag = `${bed.registry.host}/${name}:build${index}`;
  const progress = await bed.build([context, "--push", "-t", tag, ...args]);
  return { tag, progress };
}

/** Steps of a progress that did some work: not the internal ones, not the base images, not the exports. */
function stepsNotCached(progress: string): string[] {
  const names = new Map<string, string>();
  const cached = new Set<string>();
  for (const line of progress.split("\n")) {
    const named = /^#(\d+) (\[(?!(?:\S+ )?(?:internal|auth)\b|context )[^\]]*\] (?!FROM ).*)$/.exec(line);
    if (named) names.set(named[1] ?? "", named[2] ?? "");
    const done = /^#(\d+) CACHED$/.exec(line);
    if (done) cached.add(done[1] ?? "");
  }
  assert.ok(names.size > 0, `no steps in:\n${progress}`);
  return [...names].filter(([id]) => !cached.has(id)).map(([, step]) => step);
}

function checkFile(root: string, path: string, expected: ExpectedFile): void {
  const file = join(root, path);
  const info = lstatSync(file, { throwIfNoEntry: false });
  if (expected.absent) {
    assert.equal(info, undefined, `${path} is there`);
    return;
  }
  assert.ok(info, `${path} is missing`);
  if (expected.directory) assert.ok(info.isDirectory(), `${path} is no folder`);
  if (expected.link !== undefined) assert.equal(readlinkSync(file), expected.link, path);
  if (expected.text !== undefined) assert.equal(readFileSync(file, "utf8"), expected.text, path);
  if (expected.contains !== undefined) {
    assert.ok(readFileSync(file, "utf8").includes(expected.contains), `${path} lacks ${expected.contains}`);
  }
  if (expected.mode !== undefined) assert.equal((info.mode & 0o7777).toString(8), expected.mode, path);
  if (expected.owner !== undefined) assert.equal(`${info.uid}:${info.gid}`, expected.owner, path);
}

function checkImage(image: UnpackedImage, expected: ExpectedBuild): void {
  for (const [path, file] of Object.entries(expected.files)) checkFile(image.root, path, file);
  for (const [path, names] of Object.entries(expected.tree ?? {})) {
    assert.deepEqual(readdirSync(join(image.root, path), { recursive: true }).sort(), [...names].sort());
  }
  for (const [key, value] of Object.entries(expected.config)) {
    assert.deepEqual(image.config.config?.[key] ?? null, value, key);
  }
  // Each layer has one entry in the history that isn't empty.
  const layers = (image.config.history ?? []).filter((entry) => !entry.empty_layer);
  assert.equal(layers.length, image.config.rootfs.diff_ids.length);
}

for (const name of NAMES) {
  test(`${name}: files, configuration and the second run`, async () => {
    for (const [index, expected] of buildsOf(name).entries()) {
      const { tag } = await push(name, index);
      const image = await unpackFromRegistry(bed.folder, tag, expected.platform);
      checkImage(image, expected);
      if (expected.platform !== undefined) {
        assert.equal(
          `${image.config.os}/${image.config.architecture}`,
          expected.platform.split("/", 2).join("/"),
        );
      }
      if (expected.runs !== undefined) assert.equal((await runImage(image)).stdout, expected.runs);
      const again = await push(name, index);
      assert.deepEqual(stepsNotCached(again.progress), []);
    }
  });
}

test("everything comes from the cache after the daemon starts again", async () => {
  await bed.restart();
  for (const name of NAMES) {
    const { progress } = await push(name, 0);
    assert.deepEqual(stepsNotCached(progress), [], name);
  }
});
