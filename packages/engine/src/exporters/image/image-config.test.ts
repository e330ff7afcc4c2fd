import assert from "node:assert/strict";
import { test } from "node:test";
import {
  attestationConfig,
  type ConfigPatch,
  defaultImageConfig,
  fitHistory,
  goTime,
  historyOf,
  patchImageConfig,
} from "./image-config.ts";

const LAYERS = [
  { description: "RUN one", createdAt: 1_000 },
  { description: "", createdAt: 2_500 },
];

function patched(config: string, patch: Partial<ConfigPatch> = {}): Record<string, unknown> {
  const text = patchImageConfig(config, {
    diffIds: ["sha256:a"],
    history: [],
    inlineCache: undefined,
    epoch: undefined,
    baseHistory: [],
    ...patch,
  });
  return JSON.parse(text);
}

test("layers without a history get one from what is known of them", () => {
  assert.deepEqual(fitHistory([], LAYERS), [
    { created: "1970-01-01T00:00:01Z", created_by: "RUN one", comment: "buildkit.exporter.image.v0" },
    {
      created: "1970-01-01T00:00:02.5Z",
      created_by: "created by buildkit",
      comment: "buildkit.exporter.image.v0",
    },
  ]);
});

test("history without a layer is marked so, and every entry gets a time", () => {
  const history = [
    { created_by: "ENV" },
    { created_by: "a", empty_layer: true },
    { created_by: "b" },
    { created_by: "c" },
  ];
  const fitted = fitHistory(history, LAYERS);
  assert.deepEqual(
    fitted.map(({ created, empty_layer }) => [created, empty_layer === true]),
    [
      ["1970-01-01T00:00:01Z", false],
      ["1970-01-01T00:00:02.5Z", true],
      ["1970-01-01T00:00:02.5Z", false],
      ["1970-01-01T00:00:02.5Z", true],
    ],
  );
  assert.deepEqual(Object.keys(fitted[1] as object), ["created", "created_by", "empty_layer"]);
});

test("the history of a config", () => {
  assert.deepEqual(historyOf("{}"), []);
  assert.deepEqual(historyOf('{"history": null}'), []);
  assert.deepEqual(
    historyOf('{"history": [{"created_by": "x", "author": "", "empty_layer": true, "odd": 1}]}'),
    [{ created_by: "x", empty_layer: true }],
  );
  assert.throws(() => historyOf('{"history": {}}'), /failed to unmarshal history/);
});

test("a config keeps what the frontend said, with its layers and a time", () => {
  const config = patched(
    '{"os":"linux","architecture":"amd64","config":{"Labels":{"a":"<b>"}},"odd":[1,2]}',
    {
      history: [{ created: "2026-01-02T03:04:05Z", created_by: "x" }],
    },
  );
  assert.deepEqual(config.rootfs, { type: "layers", diff_ids: ["sha256:a"] });
  assert.equal(config.created, "2026-01-02T03:04:05Z");
  assert.deepEqual(config.odd, [1, 2]);
  assert.deepEqual(config.config, { Labels: { a: "<b>" } });
  const empty = patched('{"os":"linux","architecture":"amd64"}', { diffIds: [] });
  assert.deepEqual(
    [empty.rootfs, empty.history, empty.created],
    [{ type: "layers", diff_ids: null }, null, null],
  );
});

test("an inline cache stands in the config as base64", () => {
  const config = patched('{"os":"linux","architecture":"amd64"}', { inlineCache: Buffer.from("[]") });
  assert.equal(config["moby.buildkit.cache.v0"], Buffer.from("[]").toString("base64"));
});

test("no time is later than the epoch, but for the base image's own", () => {
  const base = [{ created: "2030-01-01T00:00:00Z", created_by: "base" }];
  const config = patched('{"os":"linux","architecture":"amd64","created":"2031-01-01T00:00:00Z"}', {
    epoch: 1_000,
    baseHistory: base,
    history: [
      ...base,
      { created: "2030-01-01T00:00:00Z", created_by: "own" },
      { created: "1970-01-01T00:00:01Z", created_by: "old" },
      { created_by: "none" },
    ],
  });
  const history = config.history as { created: string }[];
  assert.deepEqual(
    history.map(({ created }) => created),
    ["2030-01-01T00:00:00Z", "1970-01-01T00:16:40Z", "1970-01-01T00:00:01Z", "1970-01-01T00:16:40Z"],
  );
  assert.equal(config.created, "1970-01-01T00:16:40Z");
});

test("configs that nothing can run are refused", () => {
  for (const config of ["{}", '{"os":""}', '{"os":"linux"}', '{"os":"linux","architecture":null}'])
    assert.throws(() => patched(config), /invalid image config for export: missing (?:os|architecture)/);
  assert.throws(
    () => patched('{"os":"linux","architecture":"amd64","created":"soon"}', { epoch: 1 }),
    /failed to unmarshal creation time "soon"/,
  );
});

test("configs that no frontend gave", () => {
  const config = JSON.parse(defaultImageConfig());
  assert.equal(config.os, "linux");
  assert.deepEqual(config.config.WorkingDir, "/");
  assert.equal(JSON.parse(attestationConfig([])).rootfs.diff_ids, null);
  assert.deepEqual(
    [goTime(0), goTime(1_500), goTime(1_000_010)],
    ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01.5Z", "1970-01-01T00:16:40.01Z"],
  );
});
