/** Attributes that are lists of entries, each a text or an object. */
import { quote } from "@kiln/hcl";
import { fail } from "../problem.ts";
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
import { entriesField, sameAttrs, uniqueByKey, uniqueBySwap } from "./field-kinds.ts";
import { checkOutputs, checkSecrets, checkSsh } from "./request-checks.ts";

const ATTRS_SCHEMA: Json = { type: "object", additionalProperties: { type: "string" } };

function attrsJson(attrs: ReadonlyMap<string, string>, ...more: (readonly [string, Json])[]): Json {
  return new Map<string, Json>([...attrs, ...more]);
}

/** The attribute `attest`. */
export const attest = entriesField<AttestEntry>({
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

function sameCache(a: CacheEntry, b: CacheEntry): boolean {
  return a.type === b.type && sameAttrs(a.attrs, b.attrs);
}

/** The attribute `cache-from`. */
export const cacheFrom = entriesField<CacheEntry>({
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

/** The attribute `cache-to`. */
export const cacheTo = entriesField<CacheEntry>({
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

/** The attribute `secret`. */
export const secret: TargetField<readonly SecretEntry[]> = {
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

/** The attribute `ssh`. */
export const ssh: TargetField<readonly SshEntry[]> = {
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

/** The attribute `output`. */
export const output = entriesField<ExportEntry>({
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

/** The attribute `policy`. */
export const policy = entriesField<PolicyEntry>({
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
