import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import {
  type BakeConfig,
  type BakeFile,
  type BakePlan,
  bakeSchema,
  defineBake,
  definitionFile,
  definitionTypes,
  ejectConfig,
  ejectPlan,
  readBake,
  referencePage,
} from "../index.ts";
import { memoryHost } from "../testing/memory-host.ts";

const config = defineBake({
  groups: { default: ["app"], all: { description: "everything", targets: ["app", "__proto__"] } },
  targets: {
    base: { context: "./base", platforms: ["linux/amd64"] },
    app: {
      inherits: ["base"],
      contexts: { base: "target:base" },
      // biome-ignore lint/suspicious/noTemplateCurlyInString: a text that HCL would take for a template
      args: { A: "${x} %{y}", N: 1, B: true },
      cacheFrom: [{ type: "registry", ref: "example.com/c" }, "type=gha"],
      output: [{ type: "image", name: "x", push: true }],
      dockerfileInline: 'FROM scratch\nRUN echo "$HOME" \\\n',
      noCacheFilter: ["a"],
      resources: { memory: "1g", cpuShares: 5 },
      tags: ["é:1"],
    },
    ["__proto__"]: { tags: ["p"] },
  },
});

function planOf(file: BakeFile): BakePlan {
  const outcome = readBake([file], memoryHost({}), { targets: ["all"] });
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  return outcome.value;
}

test("typed definitions are read like files", () => {
  const [, app] = planOf(definitionFile(config)).targets;
  // biome-ignore lint/suspicious/noTemplateCurlyInString: see above
  assert.equal(app?.args.get("A"), "${x} %{y}");
  assert.equal(app?.resources?.cpuShares, 5);
});

test("ejected definitions mean the same", () => {
  const plan = planOf(definitionFile(config));
  const want = plan.print();
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  for (const text of [ejectConfig(config, "hcl"), ejectPlan(plan, "hcl")]) {
    assert.equal(planOf({ name: "docker-bake.hcl", data: encode(text) }).print(), want);
  }
  assert.equal(planOf({ name: "docker-bake.json", data: encode(ejectPlan(plan, "json")) }).print(), want);
});

test("texts and keys with marks of the languages are ejected as they are", async () => {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: texts that HCL would take for templates
  const marks = [
    "${x}",
    "%{if}",
    "$${x}",
    "%%{",
    '"',
    "\\b",
    "\b\f\n\r\t",
    "\u0000",
    "\ufffd",
    "\u2028",
    "<<EOF\n",
    "`",
  ];
  const texts = Object.fromEntries(marks.map((mark, i) => [`${i}${mark}`, mark]));
  const target = {
    args: texts,
    labels: texts,
    extraHosts: { host: "${x}" },
    dockerfileInline: "%{",
    tags: marks,
  };
  const plan = planOf(definitionFile({ groups: { all: ["app"] }, targets: { app: target } }));
  assert.deepEqual(Object.fromEntries(plan.targets[0]!.args), texts);
  assert.deepEqual(plan.targets[0]!.extraHosts, ["host=${x}"]);
  for (const format of ["hcl", "json"] as const) {
    const data = new TextEncoder().encode(ejectPlan(plan, format));
    assert.equal(planOf({ name: `docker-bake.${format}`, data }).print(), plan.print(), format);
  }
  const script = ejectPlan(plan, "ts").replace(/^import .*\n/, "const defineBake = (config) => config;\n");
  const loaded = (await import(`data:text/javascript,${encodeURIComponent(script)}`)) as {
    default: BakeConfig;
  };
  assert.equal(planOf(definitionFile(loaded.default)).print(), plan.print(), "ts");
});

test("an ejected TypeScript file gives the same object", async () => {
  const plan = planOf(definitionFile(config));
  for (const text of [ejectConfig(config, "ts"), ejectPlan(plan, "ts")]) {
    const script = text.replace(/^import .*\n/, "const defineBake = (config) => config;\n");
    const loaded = (await import(`data:text/javascript,${encodeURIComponent(script)}`)) as {
      default: typeof config;
    };
    assert.equal(planOf(definitionFile(loaded.default)).print(), plan.print());
  }
});

const DOCS = new URL("../../../../docs/reference/", import.meta.url);
const GEN = new URL("../gen/", import.meta.url);

test("the reference page, the schema and the types are up to date", () => {
  const written =
    "// Written by packages/bake from its attribute records. Change those, then run its tests with KILN_UPDATE_DOCS=1.";
  const pages: readonly (readonly [URL, string])[] = [
    [new URL("bake.md", DOCS), referencePage()],
    [new URL("bake.schema.json", DOCS), `${JSON.stringify(bakeSchema(), undefined, 2)}\n`],
    [new URL("target-definition.ts", GEN), `${written}\n\n${definitionTypes()}`],
  ];
  for (const [path, text] of pages) {
    if (process.env.KILN_UPDATE_DOCS === "1") {
      mkdirSync(new URL(".", path), { recursive: true });
      writeFileSync(path, text);
    }
    assert.ok(existsSync(path), `run this test with KILN_UPDATE_DOCS=1 to write ${path.pathname}`);
    const found = readFileSync(path, "utf8");
    if (path.pathname.endsWith(".json")) assert.deepEqual(JSON.parse(found), JSON.parse(text));
    else assert.equal(found, text);
  }
});
