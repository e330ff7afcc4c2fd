import assert from "node:assert/strict";
import { test } from "node:test";
import { graphSvg, readBake } from "../index.ts";
import { memoryHost } from "../testing/memory-host.ts";

/** The elements of an XML text by name, with their attributes. Throws when the text isn't well-formed. */
function elements(xml: string): { readonly name: string; readonly attrs: ReadonlyMap<string, string> }[] {
  const out: { name: string; attrs: Map<string, string> }[] = [];
  const open: string[] = [];
  let at = 0;
  for (const match of xml.matchAll(/<(\/?)([a-zA-Z]+)((?:\s+[a-zA-Z:-]+="[^"<]*")*)\s*(\/?)>/g)) {
    const text = xml.slice(at, match.index);
    assert.doesNotMatch(text, /[<>]|&(?!(?:amp|lt|gt|quot|#39);)/, `text ${JSON.stringify(text)}`);
    at = match.index + match[0].length;
    const [, end, name = "", attrs = "", empty] = match;
    if (end === "/") assert.equal(open.pop(), name);
    else {
      if (empty !== "/") open.push(name);
      const pairs = [...attrs.matchAll(/([a-zA-Z:-]+)="([^"]*)"/g)].map(
        ([, k = "", v = ""]) => [k, v] as const,
      );
      assert.equal(new Set(pairs.map(([k]) => k)).size, pairs.length);
      out.push({ name, attrs: new Map(pairs) });
    }
  }
  assert.deepEqual(open, []);
  assert.equal(xml.slice(at).trim(), "");
  return out;
}

/** Boxes must neither overlap nor leave the picture. */
function checkBoxes(svg: string): number {
  const all = elements(svg);
  const number = (attrs: ReadonlyMap<string, string>, name: string): number => Number(attrs.get(name));
  const picture = all[0]!.attrs;
  const boxes = all
    .filter(({ name, attrs }) => name === "rect" && attrs.has("rx"))
    .map(({ attrs }) => ({
      x: number(attrs, "x"),
      y: number(attrs, "y"),
      right: number(attrs, "x") + number(attrs, "width"),
      bottom: number(attrs, "y") + number(attrs, "height"),
    }));
  for (const [i, a] of boxes.entries()) {
    assert.ok(
      a.x >= 0 && a.y >= 0 && a.right <= number(picture, "width") && a.bottom <= number(picture, "height"),
    );
    for (const b of boxes.slice(i + 1)) {
      assert.ok(a.right <= b.x || b.right <= a.x || a.bottom <= b.y || b.bottom <= a.y, "boxes overlap");
    }
  }
  return boxes.length;
}

const TEXT = `
group "default" { targets = ["app", "tools"] }
group "tools" {
  description = "<what> & why"
  targets = ["lint", "docs"]
}
target "_common" { platforms = ["linux/amd64", "linux/arm64"] }
target "base" { inherits = ["_common"] }
target "app" {
  inherits = ["_common"]
  contexts = { base = "target:base", other = "docker-image://alpine" }
}
target "lint" { contexts = { src = "target:app" } }
target "docs" {}
target "unused" {}
`;

test("groups, links and what is inherited are drawn", () => {
  const outcome = readBake(
    [{ name: "docker-bake.hcl", data: new TextEncoder().encode(TEXT) }],
    memoryHost({}),
  );
  assert.ok(outcome.ok);
  const source = outcome.value.graph();
  const svg = graphSvg(source);
  // app, base, lint, docs, _common; default, tools
  assert.equal(checkBoxes(svg), 7);
  assert.doesNotMatch(svg, /unused/);
  assert.match(svg, /&lt;what&gt; &amp; why/);
  const edges = (kind: string): number =>
    elements(svg).filter(({ name, attrs }) => name === "path" && attrs.get("marker-end") === `url(#${kind})`)
      .length;
  // One of each kind is in the legend.
  assert.deepEqual([edges("link"), edges("inherits"), edges("member")], [2 + 1, 2 + 1, 4 + 1]);
});

test("markup in names stays text, cycles are drawn, and nothing overlaps", () => {
  const svg = graphSvg({
    targets: [
      { name: 'a"><script>', platforms: ["linux/arm64"], contexts: new Map([["b", "target:<base>"]]) },
      { name: "<base>", description: "\u0000\ud800 ]]>", contexts: new Map([["a", 'target:a"><script>']]) },
      ...Array.from({ length: 40 }, (_, i) => ({
        name: `target-with-a-long-name-${i}`,
        inherits: i > 3 ? [`target-with-a-long-name-${i >> 1}`] : [],
      })),
    ],
    groups: [
      { name: "all", targets: ["<base>", "all", "nothing", "inner"] },
      { name: "inner", targets: ["all"] },
    ],
  });
  assert.equal(checkBoxes(svg), 44);
  assert.equal(checkBoxes(graphSvg({ targets: [] })), 0);
});
