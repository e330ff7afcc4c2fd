import { bytesSize, parseRamBytes, parseUlimit } from "@kiln/formats";
import { quote } from "@kiln/hcl";
import { fail, within } from "../problem.ts";
import type { ResourceOption } from "../request.ts";
import {
  RESOURCE_NAMES,
  type Resources,
  resourcesFromValue,
  resourcesToValue,
  setResource,
} from "./entries.ts";
import type { TargetField } from "./field.ts";
import {
  boolField,
  extendTexts,
  given,
  nonEmpty,
  nullableMapField,
  textField,
  textsField,
} from "./field-kinds.ts";

function resourceOption(resources: Resources): ResourceOption {
  const out: { -readonly [K in keyof ResourceOption]: ResourceOption[K] } = {};
  for (const name of RESOURCE_NAMES) {
    const value = resources.get(name);
    if (value === undefined) continue;
    const size = (): number => {
      const text = String(value).trim();
      if (name === "memory-swap" && text === "-1") return -1;
      return within(`invalid value ${quote(text)} for resource ${name}`, () => parseRamBytes(text));
    };
    if (name === "memory") out.memoryBytes = size();
    else if (name === "memory-swap") out.memorySwapBytes = size();
    else if (name === "cpu-shares") out.cpuShares = Number(value);
    else if (name === "cpu-period") out.cpuPeriod = Number(value);
    else if (name === "cpu-quota") out.cpuQuota = Number(value);
    else if (name === "cpuset-cpus") out.cpusetCpus = String(value);
    else out.cpusetMems = String(value);
  }
  return out;
}

/** The `pull` attribute. */
export const pull = boolField({
  name: "pull",
  doc: "Always ask registries whether base images have changed.",
  example: "pull = true",
  compose: (build) => (build.pull ? true : undefined),
  request: (value, draft) => {
    draft.pull = value;
  },
});

/** The `noCache` attribute. */
export const noCache = boolField({
  name: "no-cache",
  doc: "Run every step, whatever is cached.",
  example: "no-cache = true",
  compose: (build) => (build.noCache ? true : undefined),
  request: (value, draft) => {
    draft.noCache = value;
  },
});

/** The `network` attribute. */
export const network = textField({
  name: "network",
  doc: "Network of RUN steps: `default`, `none` or `host`.",
  example: 'network = "none"',
  compose: (build) => nonEmpty(build.network),
  request: (value, draft) => {
    draft.network = value;
  },
});

/** The `noCacheFilter` attribute. */
export const noCacheFilter = textsField({
  name: "no-cache-filter",
  combine: "append",
  doc: "Stages whose steps run, whatever is cached.",
  example: 'no-cache-filter = ["fetch"]',
  extension: { key: "no-cache-filter", holds: "texts", apply: extendTexts },
  request: (value, draft) => {
    draft.noCacheFilter = value;
  },
});

/** The `shmSize` attribute. */
export const shmSize = textField({
  name: "shm-size",
  doc: "Size of /dev/shm in RUN steps.",
  example: 'shm-size = "128m"',
  compose: (build) => (build.shmSizeBytes > 0 ? bytesSize(build.shmSizeBytes) : undefined),
  request: (value, draft) => {
    try {
      draft.shmSizeBytes = parseRamBytes(value);
    } catch {
      fail(`invalid value ${value} for membytes key shm-size`);
    }
  },
});

/** The `ulimits` attribute. */
export const ulimits = textsField({
  name: "ulimits",
  combine: "append",
  keys: ["ulimit", "ulimits"],
  doc: "Resource limits of RUN steps, `name=soft[:hard]`.",
  example: 'ulimits = ["nofile=1024:2048"]',
  compose: (build) =>
    build.ulimits.length === 0
      ? undefined
      : build.ulimits.map(({ name, soft, hard }) => `${name}=${soft}:${hard}`),
  request: (value, draft) => {
    draft.ulimits = value
      .map(parseUlimit)
      .map(({ name, soft, hard }) => ({ name, soft: Number(soft), hard: Number(hard) }));
  },
});

/** The `resources` attribute. */
export const resources: TargetField<Resources> = {
  name: "resources",
  type: undefined,
  decode: resourcesFromValue,
  nullable: false,
  toValue: resourcesToValue,
  merge: (mine, theirs) => new Map([...(mine ?? []), ...theirs]),
  print: (value) =>
    Object.fromEntries(RESOURCE_NAMES.flatMap((name) => (value.has(name) ? [[name, value.get(name)!]] : []))),
  override: {
    keys: ["resource", "resources"],
    shape: "named",
    apply: (target, { sub, value }) =>
      target.set(resources, setResource(target.get(resources), sub ?? "", value)),
  },
  schema: {
    type: "object",
    properties: {
      memory: { type: "string" },
      "memory-swap": { type: "string" },
      "cpu-shares": { type: "number" },
      "cpu-period": { type: "number" },
      "cpu-quota": { type: "number" },
      "cpuset-cpus": { type: "string" },
      "cpuset-mems": { type: "string" },
    },
  },
  request: (value, draft) => {
    draft.resources = resourceOption(value);
  },
  doc: "Limits on memory and processors of RUN steps.",
  example: 'resources = { memory = "2g", cpu-shares = 512 }',
};

/** The `call` attribute. */
export const call = textField({
  name: "call",
  doc: "Ask the frontend something instead of building: `check`, `outline` or `targets`.",
  example: 'call = "check"',
});

/** The `entitlements` attribute. */
export const entitlements = textsField({
  name: "entitlements",
  combine: "append",
  alwaysAppend: true,
  keys: ["entitlement", "entitlements"],
  onOverride: (values, grants) => {
    if (values.includes("network.host")) grants.networkHost = true;
    if (values.includes("security.insecure")) grants.securityInsecure = true;
  },
  doc: "Permissions that the build needs: `network.host`, `security.insecure`, `device=…`.",
  example: 'entitlements = ["network.host"]',
  request: (value, draft) => {
    draft.entitlements = value;
  },
});

/** The `extraHosts` attribute. */
export const extraHosts = nullableMapField({
  name: "extra-hosts",
  keys: ["extra-host", "extra-hosts"],
  doc: "Lines of /etc/hosts in RUN steps: addresses by host name.",
  example: 'extra-hosts = { "db.local" = "10.0.0.5" }',
  compose: (build) =>
    build.extraHosts.size === 0
      ? undefined
      : new Map([...build.extraHosts].map(([name, addresses]) => [name, addresses.join(",")])),
  request: (value, draft) => {
    draft.extraHosts = [...given(value)]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, address]) => `${name}=${address}`);
  },
});
