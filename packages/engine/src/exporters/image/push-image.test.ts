import assert from "node:assert/strict";
import { test } from "node:test";
import { mediaTypes, parseReference } from "@kiln/oci";
import { mountCandidates } from "@kiln/registry";
import type { Remote } from "@kiln/store";
import { knownSources } from "./push-image.ts";

const layer = { mediaType: mediaTypes.ociLayerGzip, digest: `sha256:${"a".repeat(64)}`, size: 1 } as const;
const other = { ...layer, digest: `sha256:${"b".repeat(64)}` } as const;

function image(...remotes: readonly (readonly string[])[]) {
  const layers = remotes.map((found) => ({ remotes: found }));
  const descriptors = [layer, other].slice(0, layers.length);
  return { layers: [{ descriptors, layers } as unknown as Remote] };
}

test("a layer can be mounted from wherever the store has seen it, whether it is lazy or not", () => {
  const of = image(["r.test:5000/base", "r.test:5000/team/app", "docker.io/library/x"], ["r.test:5000/y"]);
  const from = (name: string) => mountCandidates(parseReference(name), knownSources(of, layer));
  assert.deepEqual(from("r.test:5000/team/new"), ["team/app", "base"]);
  // it is there already
  assert.deepEqual(from("r.test:5000/base"), []);
  assert.deepEqual(from("elsewhere.test/new"), []);
  assert.deepEqual(knownSources(image([]), layer), []);
});
