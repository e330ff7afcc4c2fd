import { quoteGo } from "@kiln/formats";
import { cleanPath, isAbsolute, joinPath } from "@kiln/llb";
import { equalFold } from "./go-text.ts";
import { Problem, wrapProblem } from "./problem.ts";

/** Forward slashes; only Windows has others. */
export function toSlash(path: string, os: string): string {
  return os === "windows" ? path.replaceAll("\\", "/") : path;
}

/** Cleans a Windows path and takes its drive letter off, which must be C. Other paths pass unchanged. */
export function withoutDrive(path: string, os: string, keepSlash: boolean): string {
  if (os !== "windows") return path;
  if (path.length === 2 && path[1] === ":") {
    throw new Problem(`No relative path specified in ${quoteGo(path)}`);
  }
  if (toSlash(path.slice(0, 2), os) === "//") throw new Problem("UNC paths are not supported");
  const colon = path.indexOf(":");
  if (colon < 0) return cleanWindows(path, keepSlash);
  if (!equalFold(path.slice(0, colon), "c")) {
    throw new Problem("The specified path is not on the system drive (C:)");
  }
  return cleanWindows(path.slice(colon + 1), keepSlash);
}

function cleanWindows(path: string, keepSlash: boolean): string {
  const slashed = toSlash(path, "windows");
  const clean = cleanPath(slashed);
  return keepSlash && clean.length > 1 && slashed.endsWith("/") ? `${clean}/` : clean;
}

/** True for a path from the root; on Windows without regard to the drive. */
export function isOsAbsolute(path: string, os: string): boolean {
  try {
    return isAbsolute(toSlash(withoutDrive(path, os, false), os));
  } catch (error) {
    if (error instanceof Problem) return false;
    throw error;
  }
}

/** An absolute path with forward slashes and without drive, relative to `parent`. */
export function normalizePath(
  parent: string,
  path: string,
  options: { os: string; keepSlash: boolean },
): string {
  const { os, keepSlash } = options;
  const original = toSlash(path, os);
  let base = removeDrive(toSlash(parent, os) || "/", os, keepSlash);
  if (!isOsAbsolute(base, os)) base = joinPath("/", base);
  let out = removeDrive(original === "" ? base : original, os, keepSlash);
  if (!isOsAbsolute(out, os)) out = joinPath(base, out);
  if (keepSlash) {
    if (original.endsWith("/") && !out.endsWith("/")) out += "/";
    else if (original.endsWith("/.")) out += out === "/" ? "." : "/.";
  }
  return toSlash(out, os);
}

function removeDrive(path: string, os: string, keepSlash: boolean): string {
  try {
    return withoutDrive(path, os, keepSlash);
  } catch (error) {
    throw wrapProblem(error, "removing drive letter");
  }
}

/** A working directory with the separators of its operating system. */
export function normalizeWorkdir(current: string, dir: string, os: string): string {
  try {
    const path = normalizePath(current, dir, { os, keepSlash: false });
    return os === "windows" ? path.replaceAll("/", "\\") : path;
  } catch (error) {
    throw wrapProblem(wrapProblem(error, "normalizing working directory"), "normalizing workdir");
  }
}
