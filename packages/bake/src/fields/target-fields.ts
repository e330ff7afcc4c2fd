import { mapType, mapValue, nullValue, quote, stringType, stringValue } from "@kiln/hcl";
import { formatPlatformAll, normalizePlatform, type Platform, parsePlatform } from "@kiln/oci";
import { cut, fail, within } from "../problem.ts";
import type { AnnotationOption } from "../request.ts";
import { attest, cacheFrom, cacheTo, output, policy, secret, ssh } from "./entry-fields.ts";
import type { TargetField } from "./field.ts";
import {
  escapeTemplate,
  extendTexts,
  given,
  nonEmpty,
  nullableMapField,
  textField,
  textsField,
} from "./field-kinds.ts";
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

const stage = textField({
  name: "target",
  doc: "The stage of the Dockerfile to build.",
  example: 'target = "release"',
  compose: (build) => nonEmpty(build.target),
  request: (value, draft) => {
    draft.target = value;
  },
});

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
