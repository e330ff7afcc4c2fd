import assert from "node:assert/strict";
import test from "node:test";
import type { StatusUpdate } from "@kiln/solver";
import { layerProgress } from "./layer-progress.ts";

function recorder() {
  const statuses: StatusUpdate[] = [];
  const vertex: string[] = [];
  return {
    statuses,
    vertex,
    progress: {
      resume: () => {
        vertex.push("resumed");
        return (error?: string) => void vertex.push(error ?? "done");
      },
      status: (update: StatusUpdate) => void statuses.push(update),
      log: () => undefined,
      warning: () => undefined,
    },
  };
}

test("downloads and unpackings have BuildKit's ids; a short one is told of once, at its end", () => {
  const { progress, statuses } = recorder();
  const observer = layerProgress(progress);
  const end = observer.begin();
  const blob = { digest: "sha256:a", total: 10 };
  observer.progress({ ...blob, action: "downloading", current: 4, done: false });
  observer.progress({ ...blob, action: "downloading", current: 10, done: true });
  observer.progress({ ...blob, action: "extracting", current: 0, done: false });
  observer.progress({ ...blob, action: "extracting", current: 5, done: false });
  observer.progress({ ...blob, action: "extracting", current: 10, done: true });
  end();
  assert.deepEqual(
    statuses.map(({ id, name, current, total, completedMs }) => [
      id,
      name,
      current,
      total,
      completedMs !== undefined,
    ]),
    [
      ["sha256:a", undefined, 10, 10, true],
      ["extracting sha256:a", "extracting", undefined, undefined, false],
      ["extracting sha256:a", "extracting", undefined, undefined, true],
    ],
  );
});

test("the vertex runs while its layers are fetched, and says what went wrong", () => {
  const { progress, vertex } = recorder();
  const observer = layerProgress(progress);
  observer.begin()();
  observer.begin()(new Error("no such layer"));
  assert.deepEqual(vertex, ["resumed", "done", "resumed", "no such layer"]);
});
