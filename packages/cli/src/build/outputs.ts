/** The outputs of a build: what the daemon exports, and where the client puts what it's sent. */
import { realpathSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative } from "node:path";
import type { BuildRequest, OutputOption } from "@kiln/bake";
import { BuildError } from "@kiln/base";
import { parseGoBool, usageError } from "../command/flags.ts";

/** Where the bytes of an output go on this machine. */
export type OutputTarget =
  /** A directory of files; with `mirrors` everything else in it is removed. */
  | { readonly kind: "directory"; readonly path: string; readonly mirrors: boolean }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "stdout" }
  /** An OCI layout as a directory. */
  | { readonly kind: "layout"; readonly path: string }
  /** The image store of a Docker Engine. */
  | { readonly kind: "docker"; readonly context: string }
  | { readonly kind: "none" };

/** One output, ready for a solve. */
export interface PreparedOutput {
  /** May change once it's known what the target takes. */
  type: string;
  readonly attrs: Map<string, string>;
  readonly target: OutputTarget;
  /** The result can't be told without a list of manifests: several platforms, or attestations. */
  needsManifestList?: boolean;
}

/** What decides about outputs besides the request. */
export interface OutputRules {
  readonly push: boolean;
  readonly load: boolean;
  readonly allowsLocalDelete: boolean;
  readonly stdoutIsTerminal: boolean;
  readonly cwd: string;
}

/** The outputs that a request asks for, checked. `cacheonly` stays in the list: it stands for "nothing else". */
export function prepareOutputs(request: BuildRequest, rules: OutputRules): PreparedOutput[] {
  const outputs = withShorthands(
    request.outputs.map((output) => prepareOutput(output, rules)),
    rules,
  );
  if (outputs.filter(({ target }) => target.kind === "stdout").length > 1) {
    throw usageError("multiple outputs configured to write to stdout");
  }
  for (const { target } of outputs) {
    if (target.kind !== "directory" || !target.mirrors || rules.allowsLocalDelete) continue;
    if (isStrictlyInside(rules.cwd, target.path)) continue;
    throw usageError(
      `local output mode=delete for destination ${JSON.stringify(target.path)} requires --allow=buildx.local.delete`,
    );
  }
  return outputs;
}

function prepareOutput(output: OutputOption, rules: OutputRules): PreparedOutput {
  const attrs = new Map(output.attrs);
  const dest = output.dest ?? "";
  switch (output.type) {
    case "local":
      return { type: "local", attrs, target: directoryTarget("local", dest, localMode(attrs)) };
    case "tar":
      return { type: "tar", attrs, target: fileTarget("tar", dest || "-", rules) };
    case "oci":
    case "docker": {
      if (isFalse(attrs.get("tar"))) {
        const { path } = directoryTarget(output.type, dest, false) as { path: string };
        return { type: output.type, attrs, target: { kind: "layout", path } };
      }
      if (output.type === "oci") return { type: "oci", attrs, target: fileTarget("oci", dest || "-", rules) };
      const context = attrs.get("context") ?? "";
      attrs.delete("context");
      if (dest === "") return { type: "docker", attrs, target: { kind: "docker", context } };
      return { type: "docker", attrs, target: fileTarget("docker", dest, rules) };
    }
    case "registry":
      attrs.set("push", "true");
      if (!attrs.has("unpack")) attrs.set("unpack", "false");
      return { type: "image", attrs, target: { kind: "none" } };
    default:
      if (output.type === "") throw usageError("type is required for output");
      return { type: output.type, attrs, target: { kind: "none" } };
  }
}

function withShorthands(outputs: PreparedOutput[], rules: OutputRules): PreparedOutput[] {
  const all = [...outputs];
  if (rules.push) {
    const images = all.filter(({ type }) => type === "image");
    for (const { attrs } of images) {
      attrs.set("push", "true");
      if (!attrs.has("unpack")) attrs.set("unpack", "false");
    }
    if (images.length === 0) {
      const attrs = new Map([
        ["push", "true"],
        ["unpack", "false"],
      ]);
      all.push({ type: "image", attrs, target: { kind: "none" } });
    }
  }
  if (rules.load && !all.some(({ target }) => target.kind === "docker")) {
    all.push({ type: "docker", attrs: new Map(), target: { kind: "docker", context: "" } });
  }
  return all;
}

function localMode(attrs: ReadonlyMap<string, string>): boolean {
  const mode = attrs.get("mode") ?? "";
  if (mode === "" || mode === "copy") return false;
  if (mode === "delete") return true;
  throw usageError(`invalid local exporter mode ${JSON.stringify(mode)}`);
}

function directoryTarget(type: string, dest: string, mirrors: boolean): OutputTarget {
  if (dest === "") throw usageError(`dest is required for ${type} exporter`);
  if (dest === "-") throw usageError(`dest cannot be stdout for ${type} exporter`);
  if (kindOf(dest) === "file") throw usageError(`destination directory ${dest} is a file`);
  return { kind: "directory", path: dest, mirrors };
}

function fileTarget(type: string, dest: string, rules: OutputRules): OutputTarget {
  if (dest === "-") {
    if (rules.stdoutIsTerminal) {
      throw usageError(`dest file is required for ${type} exporter. refusing to write to console`);
    }
    return { kind: "stdout" };
  }
  if (kindOf(dest) === "directory") throw usageError(`destination file ${dest} is a directory`);
  return { kind: "file", path: dest };
}

function kindOf(path: string): "file" | "directory" | "nothing" {
  try {
    return statSync(path).isDirectory() ? "directory" : "file";
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "nothing";
    throw new BuildError("invalid_argument", `invalid destination: ${path}`, { cause: error });
  }
}

/** True for a text that Go reads as `false`; anything else counts as true. */
export function isFalse(text: string | undefined): boolean {
  return text !== undefined && !isTrue(text, true);
}

/** True for a text that Go reads as `true`; `fallback` for none at all. */
export function isTrue(text: string | undefined, fallback = false): boolean {
  if (text === undefined) return fallback;
  try {
    return parseGoBool(text);
  } catch {
    return fallback;
  }
}

function isStrictlyInside(root: string, path: string): boolean {
  const place = relative(realpathSync(root), realPathOf(isAbsolute(path) ? path : join(root, path)));
  return place !== "" && place !== ".." && !place.startsWith("../") && !isAbsolute(place);
}

/** The path with links resolved as far as it exists. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPathOf(parent), basename(path));
  }
}
