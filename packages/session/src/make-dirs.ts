import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { BuildError, codeOfNodeError, nodeReason } from "@kiln/base";

/**
 * Makes a directory and what is missing above it. Node's own recursive call never returns where a parent exists but
 * says that what is made in it doesn't, as `/proc` does.
 */
export function makeDirs(path: string, mode = 0o777): void {
  if (isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeDirs(parent, mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if (isDirectory(path)) return;
    throw new BuildError(codeOfNodeError(error), `mkdir ${path}: ${nodeReason(error)}`, { cause: error });
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
