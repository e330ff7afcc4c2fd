import type { BakeFile, BakeHost } from "./host.ts";
import { fail, requireBool, within } from "./problem.ts";

/** Files that are read when none is named, in this order; all that exist count. */
export const DEFAULT_FILES: readonly string[] = [
  "compose.yaml",
  "compose.yml",
  "docker-compose.yml",
  "docker-compose.yaml",
  "docker-bake.json",
  "docker-bake.hcl",
  "docker-bake.override.json",
  "docker-bake.override.hcl",
];

/** Reads the named files, or the default ones; `-` is standard input. Empty files don't count. */
export function readBakeFiles(names: readonly string[], host: BakeHost, stdin: () => Uint8Array): BakeFile[] {
  const given = names.length > 0;
  const out: BakeFile[] = [];
  for (const name of given ? names : DEFAULT_FILES) {
    const data = name === "-" ? stdin() : host.readFile(name);
    if (data !== undefined && (name === "-" || data.length > 0)) out.push({ name, data });
    else if (data === undefined && given) fail(`open ${name}: no such file or directory`);
  }
  return out;
}

/** The files that `BUILDX_BAKE_FILE` names; `undefined` when it isn't set. */
export function filesFromEnvironment(host: BakeHost, pathSeparator = ":"): string[] | undefined {
  const text = host.env("BUILDX_BAKE_FILE");
  if (text === undefined) return undefined;
  const separator = host.env("BUILDX_BAKE_PATH_SEPARATOR") || pathSeparator;
  const names = text
    .split(separator)
    .map((name) => name.trim())
    .filter((name) => name !== "");
  for (const name of names) {
    if (name !== "-" && host.stat(name) === undefined) fail(`stat ${name}: no such file or directory`);
  }
  return names;
}

/** Whether contexts are relative to the file that gives them (`BUILDX_BAKE_FILE_RELATIVE_PATHS`). */
export function fileRelativePaths(host: BakeHost): boolean {
  const name = "BUILDX_BAKE_FILE_RELATIVE_PATHS";
  const text = (host.env(name) ?? "").trim();
  if (text === "") return false;
  return within(`failed to parse ${name} value ${JSON.stringify(text)}`, () => requireBool(text));
}
