import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  type BakeConfig,
  checkConfig,
  defineBake,
  definitionFile,
  lineOfPath,
  moduleDeclarations,
  readBake,
  TARGET_FIELDS,
  type TargetDefinition,
} from "../index.ts";
import { memoryHost } from "../testing/memory-host.ts";
import { kebabCase } from "./define.ts";

/** Every attribute once: `Required` makes the compiler complain when one is missing or unknown. */
const every: Required<TargetDefinition> = {
  description: "all of them",
  inherits: ["base"],
  annotations: ["index:a=b"],
  attest: [{ type: "provenance", mode: "max" }, "type=sbom"],
  context: "app",
  contexts: { base: "target:base" },
  dockerfile: "app.Dockerfile",
  dockerfileInline: "FROM scratch",
  args: { TEXT: "x", NUMBER: 1, BOOL: true, NOTHING: null },
  labels: { a: "b" },
  tags: ["example.com/app"],
  cacheFrom: [{ type: "registry", ref: "example.com/cache" }, "type=gha"],
  cacheTo: [{ type: "inline" }],
  target: "release",
  secret: [{ id: "token", env: "TOKEN" }],
  ssh: [{ id: "default", paths: ["agent.sock"] }],
  platforms: ["linux/amd64", "linux/mips64le"],
  output: [{ type: "image", push: true }],
  pull: true,
  noCache: false,
  network: "none",
  noCacheFilter: ["fetch"],
  shmSize: "128m",
  ulimits: ["nofile=1:2"],
  resources: { memory: "1g", cpuShares: 5 },
  call: "build",
  entitlements: ["network.host"],
  extraHosts: { db: "10.0.0.1" },
  policy: [{ disabled: true }],
};

test("the types have every attribute of the records, and no other", () => {
  assert.deepEqual(Object.keys(every).map(kebabCase).sort(), TARGET_FIELDS.map(({ name }) => name).sort());
});

test("every attribute passes the check and is understood", () => {
  const given = { targets: { base: {}, every } };
  const checked = checkConfig(given);
  assert.ok("config" in checked, JSON.stringify(checked));
  const host = memoryHost({ sockets: ["agent.sock"], env: { TOKEN: "x" } });
  const outcome = readBake([definitionFile(checked.config)], host, { targets: ["every"] });
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  const printed = JSON.parse(outcome.value.print()) as { target: { every: Record<string, unknown> } };
  const missing = TARGET_FIELDS.map(({ name }) => name).filter(
    (name) => name !== "inherits" && !(name in printed.target.every),
  );
  assert.deepEqual(missing, []);
  assert.deepEqual(outcome.value.diagnostics, []);
});

function problems(value: unknown): string[] {
  const checked = checkConfig(value);
  return "config" in checked ? [] : checked.map(({ message, path }) => `${path.join("/")}: ${message}`);
}

test("what isn't a definition is told in the user's words", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [undefined, ": the definition must be an object, not nothing"],
    [[], ": the definition must be an object, not an array"],
    [{}, ': "targets" is missing'],
    [{ targets: [] }, 'targets: "targets" must be an object, not an array'],
    [{ target: {}, targets: {} }, 'target: "target" is not known here. Did you mean "targets"?'],
    [{ targets: { a: 1 } }, 'targets/a: target "a" must be an object, not a number'],
    [{ targets: { "a b": {} } }, 'targets/a b: invalid name "a b", want letters, digits, "_" and "-"'],
    [
      { targets: { a: { platfroms: [] } } },
      'targets/a/platfroms: target "a": unknown attribute "platfroms". Did you mean "platforms"?',
    ],
    [{ targets: { a: { xyzzy: 1 } } }, 'targets/a/xyzzy: target "a": unknown attribute "xyzzy"'],
    [
      { targets: { a: { pull: "yes" } } },
      'targets/a/pull: target "a": "pull" must be a boolean, not a string',
    ],
    [{ targets: { a: { tags: "x" } } }, 'targets/a/tags: target "a": "tags" must be an array, not a string'],
    [
      { targets: { a: { tags: [["x"]] } } },
      'targets/a/tags: target "a": "tags" [0] must be a string, not an array',
    ],
    [
      { targets: { a: { args: { X: {} } } } },
      'targets/a/args: target "a": "args" "X" must be a string, not an object',
    ],
    [
      { targets: { a: { secret: [{ id: "x", file: "y" }] } } },
      'targets/a/secret: target "a": "secret" [0] "file" is not known',
    ],
    [
      { targets: { a: { cacheFrom: [], "cache-from": [] } } },
      'targets/a/cache-from: target "a": "cache-from" is given twice',
    ],
    [
      { targets: { a: { secret: [{ id: "x", constructor: "y" }] } } },
      'targets/a/secret: target "a": "secret" [0] "constructor" is not known',
    ],
    [
      { targets: { a: { policy: [{ filename: [[]] }] } } },
      'targets/a/policy: target "a": "policy" [0] "filename" must be a string or a number or a boolean, not an array',
    ],
    [{ groups: { g: {} }, targets: {} }, 'groups/g: group "g" has no "targets"'],
    [
      { groups: { g: "a" }, targets: {} },
      'groups/g: group "g" must be an array of names or an object, not a string',
    ],
    [
      { groups: { g: [1, null] }, targets: {} },
      'groups/g/targets: group "g": "targets" [1] must be a string, not null',
    ],
  ];
  for (const [value, message] of cases) assert.deepEqual(problems(value), [message]);
  assert.deepEqual(problems({ targets: { a: { pull: undefined, tags: null } } }), []);
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`x${i}`, 1]));
  assert.equal(problems({ targets: { a: many } }).length, 20);
});

test("problems are found again in the text", () => {
  const text = `export default defineBake({
  targets: {
    base: { tags: [] },
    "app": {
      tags: ["x"],
      platfroms: [],
    },
  },
});
`;
  assert.equal(lineOfPath(text, ["targets", "app", "platfroms"]), 6);
  assert.equal(lineOfPath(text, ["targets", "app"]), 4);
  assert.equal(lineOfPath(text, ["targets", "other", "tags"]), undefined);
  assert.equal(lineOfPath(text, []), undefined);
});

const TSC = new URL("../../../../node_modules/typescript/bin/tsc", import.meta.url).pathname;

function compile(files: Readonly<Record<string, string>>): {
  readonly status: number | null;
  readonly stdout: string;
} {
  const folder = mkdtempSync(join(tmpdir(), "kiln-types-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const options = "--noEmit --strict --exactOptionalPropertyTypes --target es2022 --module nodenext".split(
      " ",
    );
    const args = [TSC, ...options, "--types", "", "kiln.bake.ts"];
    const { status, stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
    return { status, stdout };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const HEAD = '/// <reference path="./kiln-bake.d.ts" />\nimport { defineBake } from "@kiln/bake";\n';

test("editors check definitions with the printed declarations", () => {
  const declarations = moduleDeclarations();
  const good = `${HEAD}
export default defineBake(({ variable, localPlatform }) => {
  const tag: string = variable("TAG", "dev");
  const jobs: number = variable("JOBS", 4, "how many");
  const debug: boolean = variable("DEBUG", false);
  const token: string | undefined = variable("TOKEN");
  return {
    groups: { default: ["app"] },
    targets: {
      app: { tags: [\`app:\${tag}\`], platforms: [localPlatform, "linux/arm64"], args: { jobs, debug },
        cacheFrom: token === undefined ? undefined : [{ type: "gha", token }] },
    },
  };
});
`;
  assert.deepEqual(compile({ "kiln-bake.d.ts": declarations, "kiln.bake.ts": good }), {
    status: 0,
    stdout: "",
  });
  const example = new URL("../../../../examples/bake/typed/kiln.bake.ts", import.meta.url);
  const files = { "kiln-bake.d.ts": declarations, "kiln.bake.ts": readFileSync(example, "utf8") };
  assert.deepEqual(compile(files), { status: 0, stdout: "" });
  const wrong = `${HEAD}
export default defineBake({ targets: { app: { platfroms: ["linux/amd64"] } } });
`;
  const { status, stdout } = compile({ "kiln-bake.d.ts": declarations, "kiln.bake.ts": wrong });
  assert.notEqual(status, 0);
  assert.match(stdout, /platfroms/);
  assert.match(stdout, /TargetDefinition/);
});

test("typed definitions are plain objects and functions", () => {
  const config: BakeConfig = { targets: {} };
  assert.equal(defineBake(config), config);
  const make = (): BakeConfig => config;
  assert.equal(defineBake(make), make);
});
