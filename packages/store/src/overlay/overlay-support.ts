import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { errorMessage } from "@kiln/base";
import { type MachineNotes, type Mount, mountAll, unmount } from "@kiln/sys";

/** How overlays can be mounted here. */
export interface OverlaySupport {
  /** Options that every overlay gets. */
  readonly options: readonly string[];
  /** Writable overlays may skip all syncing. */
  readonly volatile: boolean;
  /** Attributes are `user.overlay.*` (in a user namespace). */
  readonly userXattr: boolean;
}

const NOTE = "overlay";

/** {@link probeOverlay}, unless it is noted already that overlays work on this file system. */
export function overlaySupport(
  root: string,
  notes: MachineNotes | undefined,
): OverlaySupport | { readonly reason: string } {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const key = [realpathSync(root), statSync(root).dev, ...moduleOptions()].join(" ");
  const known = asSupport(notes?.get(NOTE, key));
  if (known) return known;
  const support = probeOverlay(root);
  if (!("reason" in support)) notes?.set(NOTE, key, support);
  return support;
}

function asSupport(value: unknown): OverlaySupport | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { options, volatile, userXattr } = value as Record<string, unknown>;
  if (typeof volatile !== "boolean" || typeof userXattr !== "boolean") return undefined;
  if (!Array.isArray(options) || !options.every((option) => typeof option === "string")) return undefined;
  return { options, volatile, userXattr };
}

/**
 * Tries overlays below `root`.
 *
 * @returns how they work here, or why they don't
 */
export function probeOverlay(root: string): OverlaySupport | { readonly reason: string } {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const dir = mkdtempSync(join(root, "probe"));
  try {
    for (const name of ["l1", "l2", "u", "w", "m"]) mkdirSync(join(dir, name));
    let reason = "";
    for (const userXattr of [false, true]) {
      const options = [...moduleOptions(), ...(userXattr ? ["userxattr"] : [])];
      reason = tryMount(dir, options);
      if (reason !== "") continue;
      rmSync(join(dir, "w"), { recursive: true, force: true });
      mkdirSync(join(dir, "w"));
      return { options, userXattr, volatile: tryMount(dir, [...options, "volatile"]) === "" };
    }
    return { reason };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function tryMount(dir: string, options: readonly string[]): string {
  const at = (name: string): string => join(dir, name);
  const mount: Mount = {
    type: "overlay",
    source: "overlay",
    options: [...options, `lowerdir=${at("l1")}:${at("l2")}`, `upperdir=${at("u")}`, `workdir=${at("w")}`],
  };
  try {
    mountAll([mount], at("m"));
    unmount(at("m"));
    return "";
  } catch (error) {
    return errorMessage(error);
  }
}

/** Features that would put something else than whole files into upper directories are switched off. */
function moduleOptions(): string[] {
  const parameter = (name: string): string | undefined => {
    const path = `/sys/module/overlay/parameters/${name}`;
    return existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
  };
  return [
    ...(parameter("index") === undefined ? [] : ["index=off"]),
    ...(parameter("redirect_dir") === "Y" ? ["redirect_dir=off"] : []),
    ...(parameter("metacopy") === "Y" ? ["metacopy=off"] : []),
  ];
}
