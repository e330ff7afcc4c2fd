import { basename, join } from "node:path";
import type { BuildPlace } from "@kiln/driver";
import { isGitUrl, isRemoteUrl } from "../build/remote-url.ts";

const DEFAULT_FILE = "/Dockerfile";

/** What a build is called in lists: by its context, its Dockerfile and its target. */
export function buildName(attrs: Readonly<Record<string, string>>, place: BuildPlace | undefined): string {
  const given = attrs["build-arg:BUILDKIT_BUILD_NAME"];
  if (given) return given;
  const target = attrs.target ?? "";
  const name = contextName(attrs) || localName(attrs, place);
  if (target !== "") return name === "" ? target : `${name} (${target})`;
  if (name !== "") return name;
  const input = attrs["input:context"];
  return attrs["vcs:source"] ?? (input && isGitUrl(input) ? input : "");
}

function contextName(attrs: Readonly<Record<string, string>>): string {
  if (attrs.context !== undefined) return attrs.context;
  const dir = attrs["vcs:localdir:context"];
  return dir === undefined || dir === "." ? "" : dir;
}

function localName(attrs: Readonly<Record<string, string>>, place: BuildPlace | undefined): string {
  let dockerfile = attrs.filename !== undefined && attrs.filename !== "Dockerfile" ? attrs.filename : "";
  const dir = attrs["vcs:localdir:dockerfile"];
  if (dir !== undefined && dir !== ".") dockerfile = join(dir, dockerfile);
  let local = "";
  if (place && !isRemoteUrl(place.localPath)) {
    if (place.localPath !== "-") local = place.localPath;
    if (!["", "-", "Dockerfile"].includes(place.dockerfilePath)) dockerfile = place.dockerfilePath;
  }
  const isDefault = dockerfile === "" || dockerfile.endsWith(DEFAULT_FILE);
  if (dockerfile.endsWith(DEFAULT_FILE)) dockerfile = dockerfile.slice(0, -DEFAULT_FILE.length);
  if (dockerfile.startsWith(local) && dockerfile.length > local.length) {
    return dockerfile.slice(local.lastIndexOf("/") + 1);
  }
  const path = dockerfile === "" ? local : dockerfile;
  if (path === "") return "";
  const slash = path.lastIndexOf("/");
  const last = path.slice(slash + 1);
  if (isDefault) return last;
  return join(basename(slash < 0 ? path : path.slice(0, slash)), last);
}
