import { BuildError } from "@kiln/base";
import { formatPlatformAll, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { hostPlatform } from "../../worker/host-platform.ts";

/** Where an annotation goes. */
export type AnnotationPlace = "index" | "index-descriptor" | "manifest" | "manifest-descriptor";

/** Annotations by place. */
export type Annotations = Readonly<Record<AnnotationPlace, ReadonlyMap<string, string>>>;

const KEY = /^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$/;
const PLACES: readonly AnnotationPlace[] = ["index", "index-descriptor", "manifest", "manifest-descriptor"];

interface Entry {
  readonly place: AnnotationPlace;
  /** Formatted platform; "" for all. */
  readonly platform: string;
  readonly key: string;
  readonly value: string;
}

/** Annotations that attributes or a frontend's metadata ask for (buildkit.md §6.1). */
export class AnnotationSet {
  readonly #entries: readonly Entry[];

  constructor(entries: readonly Entry[] = []) {
    this.#entries = entries;
  }

  /** Both; those of `other` win. */
  with(other: AnnotationSet): AnnotationSet {
    return new AnnotationSet([...this.#entries, ...other.#entries]);
  }

  /** Platforms that annotations name. */
  platforms(): ReadonlySet<string> {
    return new Set(this.#entries.map((entry) => entry.platform).filter((platform) => platform !== ""));
  }

  /** True when some go elsewhere than into a manifest. */
  get needsOciTypes(): boolean {
    return this.#entries.some((entry) => entry.place !== "manifest");
  }

  /** Those of one platform's manifest, or (without) of what belongs to no platform. */
  for(platform: Platform | undefined): Annotations {
    const wanted = platform === undefined ? "" : formatPlatformAll(platform);
    const pick = (place: AnnotationPlace): Map<string, string> => {
      const all = place === "index" || place === "index-descriptor";
      const found = this.#entries.filter(
        (entry) => entry.place === place && (all || entry.platform === "" || entry.platform === wanted),
      );
      return new Map(found.map((entry) => [entry.key, entry.value]));
    };
    return {
      index: pick("index"),
      "index-descriptor": pick("index-descriptor"),
      manifest: pick("manifest"),
      "manifest-descriptor": pick("manifest-descriptor"),
    };
  }
}

/** Takes the annotations out of attributes; the rest is for others. */
export function parseAnnotations(attrs: ReadonlyMap<string, string>): {
  readonly annotations: AnnotationSet;
  readonly rest: Map<string, string>;
} {
  const entries: Entry[] = [];
  const rest = new Map<string, string>();
  for (const [name, value] of attrs) {
    const match = KEY.exec(name);
    if (match === null) {
      rest.set(name, value);
      continue;
    }
    const place = (match[1] ?? "manifest") as AnnotationPlace;
    if (!PLACES.includes(place)) {
      throw new BuildError("invalid_argument", `unrecognized annotation type ${place}`);
    }
    const platform =
      match[2] === undefined
        ? ""
        : formatPlatformAll(normalizePlatform(parsePlatform(match[2], hostPlatform())));
    entries.push({ place, platform, key: match[3] ?? "", value });
  }
  return { annotations: new AnnotationSet(entries), rest };
}
