/** Worker thread that hashes directory trees, so that the daemon's event loop stays free. */
import { parentPort } from "node:worker_threads";
import { codeOfNodeError, errorMessage } from "@kiln/base";
import { checksum } from "./checksum.ts";
import type { HashReply, HashRequest } from "./content-hasher.ts";
import { HashTree } from "./hash-tree.ts";

/** Trees kept between requests; upstream keeps as many. */
const MAX_TREES = 20;

const trees = new Map<string, HashTree>();

function keep(key: string, tree: HashTree): void {
  trees.delete(key);
  trees.set(key, tree);
  for (const old of trees.keys()) {
    if (trees.size <= MAX_TREES) return;
    trees.delete(old);
  }
}

function answer(request: HashRequest): HashReply {
  try {
    switch (request.kind) {
      case "checksum": {
        const tree = trees.get(request.tree) ?? new HashTree(request.root);
        // the directory may be mounted elsewhere than the last time
        const at = tree.movedTo(request.root);
        keep(request.tree, at);
        return { id: request.id, digest: checksum(at, request.path, request.options) };
      }
      case "derive": {
        const tree = trees.get(request.from) ?? new HashTree(request.root);
        keep(request.tree, tree.derive(request.root, request.changed));
        return { id: request.id, digest: "" };
      }
      case "alias": {
        const tree = trees.get(request.from);
        if (tree !== undefined) keep(request.tree, tree);
        return { id: request.id, digest: "" };
      }
      case "forget":
        trees.delete(request.tree);
        return { id: request.id, digest: "" };
    }
  } catch (error) {
    return { id: request.id, error: { code: codeOfNodeError(error), message: errorMessage(error) } };
  }
}

parentPort?.on("message", (request: HashRequest) => parentPort?.postMessage(answer(request)));
