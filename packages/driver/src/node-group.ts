/** A builder as it stands in Buildx's configuration directory. */
import { BuildError, errorMessage } from "@kiln/base";
import { goJson } from "@kiln/formats";
import { formatPlatform, type Platform, parsePlatform } from "@kiln/oci";

/** One endpoint of a builder. `null` stands for what was never set, as in the file. */
export interface StoredNode {
  readonly name: string;
  readonly endpoint: string;
  readonly platforms: readonly Platform[] | null;
  readonly driverOpts: Readonly<Record<string, string>> | null;
  readonly flags: readonly string[] | null;
  /** Path → content in base64. */
  readonly files: Readonly<Record<string, string>> | null;
}

/** A builder: its driver and its nodes. */
export interface NodeGroup {
  readonly name: string;
  readonly driver: string;
  readonly nodes: readonly StoredNode[];
  /** The driver finds the nodes (Kubernetes). */
  readonly dynamic: boolean;
}

/** Lower-cases a builder's name. @throws BuildError when it is none. */
export function validateName(name: string): string {
  if (/^[a-zA-Z][a-zA-Z0-9.\-_]*$/.test(name)) return name.toLowerCase();
  throw new BuildError(
    "invalid_argument",
    `invalid name ${name}, name needs to start with a letter and may not contain symbols, except ._-`,
  );
}

/** The file's text, byte for byte as Buildx writes it. */
export function encodeNodeGroup(group: NodeGroup): string {
  return goJson({
    Name: group.name,
    Driver: group.driver,
    Nodes: group.nodes.map((node) => ({
      Name: node.name,
      Endpoint: node.endpoint,
      Platforms: node.platforms === null ? null : node.platforms.map(platformJson),
      DriverOpts: node.driverOpts && sortedRecord(node.driverOpts),
      Flags: node.flags,
      Files: node.files && sortedRecord(node.files),
    })),
    Dynamic: group.dynamic,
  });
}

/** Reads a file's text. @throws BuildError when it isn't a builder's. */
export function decodeNodeGroup(text: string, file: string): NodeGroup {
  const data = parseObject(text, file);
  const nodes = Array.isArray(data.Nodes) ? data.Nodes : [];
  return {
    name: stringOf(data.Name),
    driver: stringOf(data.Driver),
    dynamic: data.Dynamic === true,
    nodes: nodes.map((node: unknown) => {
      const fields = isRecord(node) ? node : {};
      return {
        name: stringOf(fields.Name),
        endpoint: stringOf(fields.Endpoint),
        platforms: Array.isArray(fields.Platforms) ? fields.Platforms.filter(isRecord).map(platformOf) : null,
        driverOpts: isRecord(fields.DriverOpts) ? stringsOf(fields.DriverOpts) : null,
        flags: Array.isArray(fields.Flags) ? fields.Flags.map(stringOf) : null,
        files: isRecord(fields.Files) ? stringsOf(fields.Files) : null,
      };
    }),
  };
}

/** What `create` changes about a node. Absent parts stay. */
export interface NodeChange {
  /** Empty: the next free name. */
  readonly name: string;
  readonly endpoint: string;
  readonly endpointGiven: boolean;
  readonly append: boolean;
  readonly platforms: readonly Platform[];
  readonly flags: readonly string[] | null;
  readonly driverOpts: Readonly<Record<string, string>> | null;
  readonly files: Readonly<Record<string, string>> | null;
}

/** The group with a node added or changed. `needsRestart`: an existing node was changed. */
export function updateNode(
  group: NodeGroup,
  change: NodeChange,
): { group: NodeGroup; needsRestart: boolean } {
  const index = group.nodes.findIndex((node) => node.name === change.name);
  if (index < 0 && !change.append && group.nodes.length > 0) {
    throw new BuildError("not_found", `node ${change.name} not found, did you mean to append?`);
  }
  const known = group.nodes[index];
  const needsRestart =
    known !== undefined &&
    (change.endpointGiven || change.flags !== null || change.driverOpts !== null || change.files !== null);
  const platforms = change.platforms.length > 0 ? change.platforms : null;
  const node: StoredNode = known
    ? {
        name: known.name,
        endpoint: change.endpointGiven ? change.endpoint : known.endpoint,
        platforms: platforms ?? known.platforms,
        driverOpts: change.driverOpts ?? known.driverOpts,
        flags: change.flags ?? known.flags,
        files: change.files === null ? known.files : { ...known.files, ...change.files },
      }
    : {
        name: validateName(change.name === "" ? nextNodeName(group) : change.name),
        endpoint: change.endpoint,
        platforms,
        driverOpts: change.driverOpts,
        flags: change.flags,
        files: change.files,
      };
  const nodes = known ? group.nodes.with(index, node) : [...group.nodes, node];
  return { group: { ...group, nodes: withoutDuplicates(nodes, node) }, needsRestart };
}

/** The group without one of its nodes; the last one can't go. */
export function leaveNode(group: NodeGroup, name: string): NodeGroup {
  if (!group.nodes.some((node) => node.name === name)) {
    throw new BuildError("not_found", `node ${JSON.stringify(name)} not found for ${group.name}`);
  }
  if (group.nodes.length === 1) {
    throw new BuildError(
      "failed_precondition",
      "can not leave last node, do you want to rm instance instead?",
    );
  }
  return { ...group, nodes: group.nodes.filter((node) => node.name !== name) };
}

function nextNodeName(group: NodeGroup): string {
  for (let i = 0; ; i++) {
    const name = `${group.name}${i}`;
    if (!group.nodes.some((node) => node.name === name)) return name;
  }
}

/** Refuses a second node of one endpoint and takes the changed node's platforms from all others. */
function withoutDuplicates(nodes: readonly StoredNode[], changed: StoredNode): StoredNode[] {
  if (nodes.filter((node) => node.endpoint === changed.endpoint).length > 1) {
    throw new BuildError("invalid_argument", `invalid duplicate endpoint ${changed.endpoint}`);
  }
  const claimed = new Set((changed.platforms ?? []).map(formatPlatform));
  return nodes.map((node) => {
    if (node === changed || node.platforms === null) return node;
    return {
      ...node,
      platforms: node.platforms.filter((platform) => !claimed.has(formatPlatform(platform))),
    };
  });
}

function platformJson(platform: Platform): unknown {
  return {
    architecture: platform.architecture,
    os: platform.os,
    "os.version": platform["os.version"] || undefined,
    variant: platform.variant || undefined,
  };
}

function platformOf(data: Record<string, unknown>): Platform {
  const parts = [stringOf(data.os), stringOf(data.architecture), stringOf(data.variant)].filter(Boolean);
  const version = stringOf(data["os.version"]);
  const platform = parsePlatform(parts.join("/"));
  return version === "" ? platform : { ...platform, "os.version": version };
}

function sortedRecord(record: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A JSON object, or an error that names the file. */
export function parseObject(text: string, file: string): Record<string, unknown> {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", `invalid file ${file}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  if (!isRecord(data)) throw new BuildError("invalid_argument", `invalid file ${file}: not an object`);
  return data;
}

/** True for a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function stringOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function stringsOf(record: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, stringOf(value)]));
}
