import type { BakeFile } from "../host.ts";
import { type BakeDocument, documentJson, escapeTexts, type PlainJson } from "./document.ts";

type Texts = readonly string[];
type NullableTexts = Readonly<Record<string, string | number | boolean | null>>;
/** `type=registry,ref=…` as an object, or as the text itself. */
type Entry<T extends string> =
  | string
  | ({ readonly type: T | (string & {}) } & Readonly<Record<string, string | number | boolean>>);

/** One target of a typed definition. Names are those of HCL, in camel case. */
export interface TargetDefinition {
  /** What the target is for. */
  readonly description?: string;
  /** Targets whose attributes this one starts from. */
  readonly inherits?: Texts;
  /** `[type[platform]:]key=value` */
  readonly annotations?: Texts;
  readonly attest?: readonly Entry<"provenance" | "sbom">[];
  /** A directory, a URL, or another target's context. */
  readonly context?: string;
  /** Named contexts: directories, URLs, `docker-image://…` or `target:NAME`. */
  readonly contexts?: Readonly<Record<string, string>>;
  readonly dockerfile?: string;
  /** The Dockerfile's text itself. */
  readonly dockerfileInline?: string;
  readonly args?: NullableTexts;
  readonly labels?: NullableTexts;
  readonly tags?: Texts;
  readonly cacheFrom?: readonly Entry<"registry" | "local" | "gha" | "inline" | "s3" | "azblob">[];
  readonly cacheTo?: readonly Entry<"registry" | "local" | "gha" | "inline" | "s3" | "azblob">[];
  /** The stage to build. */
  readonly target?: string;
  readonly secret?: readonly (
    | string
    | { readonly id: string; readonly src?: string; readonly env?: string }
  )[];
  readonly ssh?: readonly (string | { readonly id: string; readonly paths?: Texts })[];
  readonly platforms?: readonly (
    | "local"
    | "linux/amd64"
    | "linux/arm64"
    | "linux/arm/v7"
    | "linux/s390x"
    | (string & {})
  )[];
  readonly output?: readonly Entry<"docker" | "image" | "registry" | "local" | "tar" | "oci" | "cacheonly">[];
  readonly pull?: boolean;
  readonly noCache?: boolean;
  readonly network?: "default" | "none" | "host";
  readonly noCacheFilter?: Texts;
  readonly shmSize?: string;
  readonly ulimits?: Texts;
  readonly resources?: {
    readonly memory?: string;
    readonly memorySwap?: string;
    readonly cpuShares?: number;
    readonly cpuPeriod?: number;
    readonly cpuQuota?: number;
    readonly cpusetCpus?: string;
    readonly cpusetMems?: string;
  };
  readonly call?: "build" | "check" | "outline" | "targets";
  readonly entitlements?: readonly ("network.host" | "security.insecure" | (string & {}))[];
  readonly extraHosts?: Readonly<Record<string, string>>;
}

/** A definition as an object. */
export interface BakeConfig {
  readonly groups?: Readonly<
    Record<string, Texts | { readonly description?: string; readonly targets: Texts }>
  >;
  readonly targets: Readonly<Record<string, TargetDefinition>>;
}

/** Gives an object the type of a definition, for `kiln.bake.ts`: `export default defineBake({ … })`. */
export function defineBake(config: BakeConfig): BakeConfig {
  return config;
}

/** `cacheFrom` as HCL spells it: `cache-from`. */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The definition with the names and texts of the HCL language. */
export function documentOfConfig({ groups = {}, targets }: BakeConfig): BakeDocument {
  const isTexts = (value: unknown): value is Texts => Array.isArray(value);
  return {
    groups: Object.entries(groups).map(([name, group]) => {
      const { description, targets: members } = isTexts(group)
        ? { description: undefined, targets: group }
        : group;
      return [
        name,
        [...(description === undefined ? [] : [["description", description] as const]), ["targets", members]],
      ];
    }),
    targets: Object.entries(targets).map(([name, target]) => [name, fieldsOf(target)]),
  };
}

function fieldsOf(target: TargetDefinition): [string, PlainJson][] {
  return Object.entries(target)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      const given = value as PlainJson;
      return [kebabCase(key), escapeTexts(key === "resources" ? kebabKeys(given) : given)];
    });
}

function kebabKeys(value: PlainJson): PlainJson {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [kebabCase(key), item]));
}

/** The definition as a file that `readBake` takes. */
export function definitionFile(config: BakeConfig, name = "kiln.bake.json"): BakeFile {
  return { name, data: new TextEncoder().encode(documentJson(documentOfConfig(config))) };
}
