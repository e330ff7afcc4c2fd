import { mapType, mapValue, nullValue, quote, stringType, stringValue } from "@kiln/hcl";
import { formatPlatformAll, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { cut, fail, within } from "../problem.ts";
import type { AnnotationOption } from "../request.ts";
import {
  type AttestEntry,
  attestKind,
  attestShorthand,
  type CacheEntry,
  cacheKind,
  type ExportEntry,
  entriesFromTexts,
  exportKind,
  type PolicyEntry,
  parseSecret,
  policyKind,
  type SecretEntry,
  type SshEntry,
  secretKind,
  sshKind,
} from "./entries.ts";
import type { Json, TargetField } from "./field.ts";
import {
  entriesField,
  escapeTemplate,
  extendTexts,
  given,
  nonEmpty,
  nullableMapField,
  sameAttrs,
  textField,
  textsField,
  uniqueByKey,
  uniqueBySwap,
} from "./field-kinds.ts";
import { checkOutputs, checkSecrets, checkSsh } from "./request-checks.ts";
import type { RequestHost } from "./request-draft.ts";
import {
  call,
  entitlements,
  extraHosts,
  network,
  noCache,
  noCacheFilter,
  pull,
  resources,
  shmSize,
  ulimits,
} from "./run-fields.ts";

const ATTRS_SCHEMA: Json = { type: "object", additionalProperties: { type: "string" } };

function attrsJson(attrs: ReadonlyMap<string, string>, ...more: (readonly [string, Json])[]): Json {
  return new Map<string, Json>([...attrs, ...more]);
}

/** The canonical platform of a text such as `linux/arm64/v8`; a comma list gives several. */
function parsePlatforms(text: string, host: RequestHost): string[] {
  if (text.includes(",")) return text.split(",").flatMap((part) => parsePlatforms(part, host));
  const [os = "linux", architecture = "amd64"] = host.localPlatform.split("/");
  const local: Platform = { os, architecture };
  if (text.toLowerCase() === "local") return [formatPlatformAll(local)];
  return [formatPlatformAll(normalizePlatform(parsePlatform(text, { os, architecture })))];
}

const ANNOTATION_TYPES = ["index", "index-descriptor", "manifest", "manifest-descriptor"] as const;

function parseAnnotation(text: string, host: RequestHost): AnnotationOption[] {
  const [head, value] = cut(text, "=");
  if (value === undefined) fail(`invalid annotation ${quote(text)}, expected key=value`);
  const [types, key] = cut(head, ":");
  if (key === undefined) return [{ type: "", key: types, value }];
  return types.split(",").map((part) => {
    const match = /^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$/.exec(part);
    if (match === null) {
      fail(`invalid annotation type ${quote(part)}, expected type and optional platform in square brackets`);
    }
    const type =
      ANNOTATION_TYPES.find((name) => name === match[1]) ??
      fail(`unknown annotation type ${quote(match[1] ?? "")}`);
    const platform = match[2];
    if (platform === undefined) return { type, key, value };
    const [parsed = ""] = within(`invalid platform ${quote(platform)}`, () => parsePlatforms(platform, host));
    return { type, platform: parsed, key, value };
  });
}

/** The attribute without a way to override it. */
function fixed<T>(field: TargetField<T>): TargetField<T> {
  const { override: _override, ...rest } = field;
  return rest;
}

function composeContexts(contexts: ReadonlyMap<string, string>): Map<string, string> {
  return new Map(
    [...contexts].map(([name, value]) => {
      const match = /^(?:service|target):([\s\S]*)$/.exec(value);
      return [name, match === null ? value : `target:${(match[1] ?? "").replaceAll(".", "_")}`];
    }),
  );
}

function presentMap(map: ReadonlyMap<string, string>): ReadonlyMap<string, string | null> | undefined {
  return map.size === 0 ? undefined : map;
}

const description = fixed(
  textField({
    name: "description",
    doc: "What the target is for; shown by `--list targets`.",
    example: 'description = "The web application"',
    nullable: false,
    toValue: (value) => stringValue(value ?? ""),
    merge: (mine, theirs) => (theirs === "" ? mine : theirs),
    print: nonEmpty,
    schema: { type: "string" },
    request: (value, draft) => {
      draft.description = value;
    },
  }),
);

const inherits = fixed(
  textsField({
    name: "inherits",
    combine: "append",
    doc: "Targets whose attributes this one starts from, the later ones over the earlier.",
    example: 'inherits = ["_common"]',
    normalize: (value) => value,
  }),
);

const annotations = textsField({
  name: "annotations",
  combine: "append",
  alwaysAppend: true,
  escaped: true,
  keys: ["annotation", "annotations"],
  doc: "OCI annotations of the result, `[type[platform]:]key=value`.",
  example: 'annotations = ["index,manifest:org.opencontainers.image.authors=me"]',
  request: (value, draft, host) => {
    draft.annotations = value.filter((text) => text !== "").flatMap((text) => parseAnnotation(text, host));
  },
});

const attest = entriesField<AttestEntry>({
  name: "attest",
  kind: attestKind,
  combine: "append",
  alwaysAppend: true,
  complaint: "invalid value for attest",
  unique: (entries) => uniqueByKey(entries, (entry) => entry.type),
  toJson: ({ type, disabled, attrs }) =>
    attrsJson(attrs, ["type", type], ...(disabled ? [["disabled", true] as const] : [])),
  entrySchema: ATTRS_SCHEMA,
  doc: "Attestations: provenance and software bills of materials.",
  example: 'attest = [{ type = "provenance", mode = "max" }, { type = "sbom" }]',
  compose: ({ sbom, provenance }) => {
    const texts = [attestShorthand("sbom", sbom), attestShorthand("provenance", provenance)];
    const entries = entriesFromTexts(attestKind, texts);
    return entries.length === 0 ? undefined : entries;
  },
  request: (value, draft) => {
    draft.attests = uniqueByKey([...value].reverse(), (entry) => entry.type).reverse();
  },
});

const context = textField({
  name: "context",
  doc: "The build context: a directory, a URL, or `target.NAME.context`.",
  example: 'context = "./app"',
  compose: (build) => nonEmpty(build.context),
});

const contextMap = mapType(stringType);

const contexts: TargetField<ReadonlyMap<string, string>> = {
  name: "contexts",
  type: contextMap,
  decode: (value) =>
    new Map(
      [...value.members].map(([key, item]) => [
        key,
        item.isNull ? fail("null value is not allowed") : item.string,
      ]),
    ),
  nullable: true,
  toValue: (value) =>
    value === undefined
      ? nullValue(contextMap)
      : mapValue(new Map([...value].map(([key, item]) => [key, stringValue(item)])), stringType),
  merge: (mine, theirs) => (theirs.size === 0 ? mine : new Map([...(mine ?? []), ...theirs])),
  normalize: (value) => {
    const kept = [...(value ?? [])].filter(([, item]) => item !== "");
    return kept.length === 0 ? undefined : new Map(kept);
  },
  print: (value) => (value.size === 0 ? undefined : value),
  override: {
    keys: ["contexts"],
    shape: "named",
    apply: (target, { sub, value }) =>
      target.set(contexts, new Map([...(target.get(contexts) ?? []), [sub ?? "", value]])),
  },
  compose: (build) =>
    build.additionalContexts.size === 0 ? undefined : composeContexts(build.additionalContexts),
  extension: {
    key: "contexts",
    holds: "mapping",
    apply: (mine, given) => {
      if (given === null || typeof given !== "object" || Array.isArray(given)) return mine;
      const more = composeContexts(
        new Map(Object.entries(given).map(([key, item]) => [key, String(item ?? "")])),
      );
      return more.size === 0 ? mine : new Map([...more, ...(mine ?? [])]);
    },
  },
  schema: { type: ["object", "null"], additionalProperties: { type: "string" } },
  doc: "Named contexts: a directory, URL, `docker-image://`, `oci-layout://` or `target:NAME`.",
  example: 'contexts = { base = "target:base" }',
};

const dockerfile = textField({
  name: "dockerfile",
  doc: "The Dockerfile, relative to the context.",
  example: 'dockerfile = "app.Dockerfile"',
  compose: (build) => nonEmpty(build.dockerfile),
});

const dockerfileInline = fixed(
  textField({
    name: "dockerfile-inline",
    doc: "The Dockerfile's text itself.",
    example: 'dockerfile-inline = "FROM alpine"',
    print: escapeTemplate,
    compose: (build) => nonEmpty(build.dockerfileInline),
    request: (value, draft) => {
      draft.dockerfileInline = value;
    },
  }),
);

const args = nullableMapField({
  name: "args",
  keys: ["arg", "args"],
  doc: "Build arguments. Null leaves an inherited value alone.",
  example: 'args = { GO_VERSION = "1.26" }',
  compose: (build) => presentMap(build.args),
  request: (value, draft) => {
    draft.args = given(value);
  },
});

const labels = nullableMapField({
  name: "labels",
  keys: ["label", "labels"],
  doc: "Labels of the image. Null leaves an inherited value alone.",
  example: 'labels = { "org.opencontainers.image.source" = "https://example.com" }',
  compose: (build) => presentMap(build.labels),
  request: (value, draft) => {
    draft.labels = given(value);
  },
});

const tags = textsField({
  name: "tags",
  combine: "replace",
  keys: ["tag", "tags"],
  doc: "Names of the image.",
  example: 'tags = ["example.com/app:1.0", "example.com/app:latest"]',
  compose: (build) => (build.tags.length > 0 ? build.tags : undefined),
  extension: { key: "tags", holds: "texts", apply: extendTexts },
  request: (value, draft) => {
    draft.tags = value;
  },
});

function sameCache(a: CacheEntry, b: CacheEntry): boolean {
  return a.type === b.type && sameAttrs(a.attrs, b.attrs);
}

const cacheFrom = entriesField<CacheEntry>({
  name: "cache-from",
  kind: cacheKind,
  combine: "append",
  unique: (entries) => uniqueBySwap(entries, sameCache),
  toJson: ({ type, attrs }) => attrsJson(attrs, ["type", type]),
  entrySchema: ATTRS_SCHEMA,
  extensionKey: "cache-from",
  onOverride: (entries, grants) => {
    for (const { type, attrs } of entries)
      if (type === "local" && attrs.has("src")) grants.read.push(attrs.get("src")!);
  },
  doc: "Where cached results may come from.",
  example: 'cache-from = [{ type = "registry", ref = "example.com/cache" }]',
  compose: (build) =>
    build.cacheFrom.length === 0 ? undefined : entriesFromTexts(cacheKind, build.cacheFrom),
  request: (value, draft) => {
    draft.cacheFrom = value;
  },
});

const cacheTo = entriesField<CacheEntry>({
  name: "cache-to",
  kind: cacheKind,
  combine: "replace",
  unique: (entries) => uniqueBySwap(entries, sameCache),
  toJson: ({ type, attrs }) => attrsJson(attrs, ["type", type]),
  entrySchema: ATTRS_SCHEMA,
  extensionKey: "cache-to",
  onOverride: (entries, grants) => {
    for (const { type, attrs } of entries) {
      if (type === "local" && attrs.has("dest")) grants.write.push(attrs.get("dest")!);
    }
  },
  doc: "Where to store cached results.",
  example: 'cache-to = [{ type = "registry", ref = "example.com/cache", mode = "max" }]',
  compose: (build) => (build.cacheTo.length === 0 ? undefined : entriesFromTexts(cacheKind, build.cacheTo)),
  request: (value, draft) => {
    draft.cacheTo = value;
  },
});

const stage = textField({
  name: "target",
  doc: "The stage of the Dockerfile to build.",
  example: 'target = "release"',
  compose: (build) => nonEmpty(build.target),
  request: (value, draft) => {
    draft.target = value;
  },
});

const secretList = entriesField<SecretEntry>({
  name: "secret",
  kind: secretKind,
  combine: "append",
  complaint: "invalid value for outputs",
  keys: ["secret", "secrets"],
  unique: (entries) => uniqueByKey(entries, (entry) => entry.id),
  toJson: ({ id, src, env }) => ({
    ...(id === "" ? {} : { id }),
    ...(src === "" ? {} : { src }),
    ...(env === "" ? {} : { env }),
  }),
  entrySchema: {
    type: "object",
    properties: { id: { type: "string" }, src: { type: "string" }, env: { type: "string" } },
    additionalProperties: false,
  },
  extensionKey: "secret",
  doc: "Secrets that build steps may mount; from a file (`src`) or an environment variable (`env`).",
  example: 'secret = [{ id = "npm", src = ".npmrc" }, { id = "TOKEN", env = "CI_TOKEN" }]',
  compose: (build) =>
    build.secrets.length === 0
      ? undefined
      : build.secrets.map(({ source, file, environment }) => ({ id: source, src: file, env: environment })),
  request: (value, draft, host) => {
    draft.secrets = checkSecrets(value, host);
  },
});

const secret: TargetField<readonly SecretEntry[]> = {
  ...secretList,
  override: {
    keys: ["secret", "secrets"],
    shape: "both",
    apply: (target, override, grants) => {
      if (override.sub === undefined) secretList.override?.apply(target, override, grants);
      else target.set(secretList, replaceSecret(target.get(secretList) ?? [], override.sub, override.value));
      const ids =
        override.sub === undefined
          ? entriesFromTexts(secretKind, override.values).map(({ id }) => id)
          : [override.sub];
      for (const { id, src } of target.get(secretList) ?? [])
        if (ids.includes(id) && src !== "") grants.read.push(src);
    },
  },
};

function replaceSecret(entries: readonly SecretEntry[], id: string, value: string): readonly SecretEntry[] {
  if (id === "") fail("invalid format for secret, expecting secret.<id>=<value>");
  if (!entries.some((entry) => entry.id === id)) {
    fail(`secret ${quote(id)} must be declared before it can be overridden`);
  }
  const next = parseSecret(value);
  if (next.id !== "" && next.id !== id) {
    fail(`secret override id ${quote(next.id)} does not match declared secret ${quote(id)}`);
  }
  return entries.map((entry) => (entry.id === id ? { id, src: next.src, env: next.env } : entry));
}

function compareSsh(a: SshEntry, b: SshEntry): number {
  const [x, y] = [`${a.id}\0${a.paths.join("\0")}`, `${b.id}\0${b.paths.join("\0")}`];
  return x < y ? -1 : x > y ? 1 : 0;
}

const sshList = entriesField<SshEntry>({
  name: "ssh",
  kind: sshKind,
  combine: "append",
  complaint: "invalid value for outputs",
  unique: (entries) => uniqueByKey(entries, (entry) => entry.id),
  toJson: ({ id, paths }) => ({ ...(id === "" ? {} : { id }), ...(paths.length === 0 ? {} : { paths }) }),
  entrySchema: {
    type: "object",
    properties: { id: { type: "string" }, paths: { type: "array", items: { type: "string" } } },
    additionalProperties: false,
  },
  extensionKey: "ssh",
  onOverride: (entries, grants) => grants.read.push(...entries.flatMap((entry) => entry.paths)),
  doc: "SSH agents or keys that build steps may use.",
  example: 'ssh = [{ id = "default" }]',
  compose: (build) =>
    build.ssh.length === 0
      ? undefined
      : build.ssh.map(({ id, path }) => ({ id, paths: path === "" ? [] : [path] })).sort(compareSsh),
  request: (value, draft, host) => {
    draft.ssh = checkSsh(value, host);
  },
});

const ssh: TargetField<readonly SshEntry[]> = {
  ...sshList,
  extension: {
    key: "ssh",
    holds: "texts",
    apply: (mine, extra) => {
      const merged = sshList.extension?.apply(mine, extra);
      return merged === mine || merged === undefined ? mine : [...merged].sort(compareSsh);
    },
  },
};

const platforms = textsField({
  name: "platforms",
  combine: "replace",
  keys: ["platform", "platforms"],
  doc: "Platforms to build for.",
  example: 'platforms = ["linux/amd64", "linux/arm64"]',
  compose: (build) => (build.platforms.length === 0 ? undefined : build.platforms),
  extension: { key: "platforms", holds: "texts", apply: extendTexts },
  request: (value, draft, host) => {
    draft.platforms = value.flatMap((text) => parsePlatforms(text, host));
  },
});

const output = entriesField<ExportEntry>({
  name: "output",
  kind: exportKind,
  combine: "replace",
  complaint: "invalid value for outputs",
  unique: (entries) =>
    uniqueBySwap(entries, (a, b) => a.type === b.type && a.dest === b.dest && sameAttrs(a.attrs, b.attrs)),
  toJson: ({ type, dest, attrs }) =>
    attrsJson(attrs, ["type", type], ...(dest === "" ? [] : [["dest", dest] as const])),
  entrySchema: ATTRS_SCHEMA,
  extensionKey: "output",
  onOverride: (entries, grants) => {
    grants.write.push(...entries.flatMap((entry) => (entry.dest === "" ? [] : [entry.dest])));
  },
  doc: "What to do with the result.",
  example: 'output = [{ type = "image", push = "true" }]',
  request: (value, draft, host) => {
    draft.outputs = checkOutputs(value, host);
  },
});

const LOG_LEVELS = ["panic", "fatal", "error", "warning", "info", "debug", "trace"];

const policy = entriesField<PolicyEntry>({
  name: "policy",
  kind: policyKind,
  combine: "append",
  unique: (entries) => entries,
  toJson: ({ files, reset, disabled, strict, logLevel }) => ({
    Files: files.length === 0 ? null : files.map((name) => ({ Filename: name, Data: null })),
    Reset: reset,
    Disabled: disabled,
    Strict: strict ?? null,
    LogLevel: logLevel === undefined || !LOG_LEVELS.includes(logLevel) ? null : logLevel,
  }),
  entrySchema: { type: "object" },
  normalize: (value) => value,
  doc: "Policies that sources must meet.",
  example: 'policy = [{ filename = "policy.rego", strict = true }]',
  request: (value, draft) => {
    draft.policy = value;
  },
});

/** All attributes of a target by their JavaScript names, in the order in which `--print` shows them. */
export const targetFields = {
  description,
  inherits,
  annotations,
  attest,
  context,
  contexts,
  dockerfile,
  dockerfileInline,
  args,
  labels,
  tags,
  cacheFrom,
  cacheTo,
  stage,
  secret,
  ssh,
  platforms,
  output,
  pull,
  noCache,
  network,
  noCacheFilter,
  shmSize,
  ulimits,
  resources,
  call,
  entitlements,
  extraHosts,
  policy,
};

/** {@link targetFields} as a list. */
export const TARGET_FIELDS = Object.values(targetFields) as unknown as readonly TargetField<unknown>[];
