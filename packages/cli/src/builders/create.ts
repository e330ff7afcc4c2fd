/** `kiln create`. */
import { existsSync } from "node:fs";
import { BuildError, errorMessage } from "@kiln/base";
import {
  type BuilderRegistry,
  checkDriver,
  dockerEndpoint,
  leaveNode,
  type NodeGroup,
  parsePlatformList,
  updateNode,
  validateName,
  validateRemoteEndpoint,
} from "@kiln/driver";
import { csvFields, shellWords } from "@kiln/formats";
import { localPlatform } from "../build/request-from-flags.ts";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { type FlagValues, usageError } from "../command/flags.ts";
import { warn } from "../log.ts";
import { Printer } from "../printer.ts";
import { timeoutFlag, withTimeout } from "./common-flags.ts";
import { openRegistry } from "./open-registry.ts";
import { randomName } from "./random-name.ts";

const MAX_NAME_TRIES = 6;

/** The command. */
export const createCommand: CommandBody = {
  usage: "[OPTIONS] [CONTEXT|ENDPOINT]",
  minArgs: 0,
  maxArgs: 1,
  hidesBuilder: true,
  flags: [
    { name: "append", kind: "bool", usage: "Append a node to builder instead of changing it" },
    { name: "bootstrap", kind: "bool", usage: "Boot builder after creation" },
    { name: "buildkitd-config", kind: "string", usage: "BuildKit daemon config file" },
    {
      name: "config",
      kind: "string",
      hidden: true,
      aliasOf: "buildkitd-config",
      usage: "BuildKit daemon config file",
    },
    { name: "buildkitd-flags", kind: "string", usage: "BuildKit daemon flags" },
    { name: "driver", kind: "string", usage: 'Driver to use (available: "remote")' },
    { name: "driver-opt", kind: "list", usage: "Options for the driver" },
    { name: "leave", kind: "bool", usage: "Remove a node from builder instead of changing it" },
    { name: "name", kind: "string", usage: "Builder instance name" },
    { name: "node", kind: "string", usage: "Create/modify node with given name" },
    { name: "platform", kind: "list", usage: "Fixed platforms for current node" },
    timeoutFlag,
    { name: "use", kind: "bool", usage: "Set the current builder instance" },
  ],
  run: runCreate,
};

async function runCreate(ctx: CommandContext): Promise<number> {
  const { flags } = ctx;
  const registry = openRegistry(ctx);
  if (flags.bool("leave")) {
    await leave(registry, flags);
    return 0;
  }
  const change = readChange(ctx, registry);
  const name = await registry.store.locked(() => save(ctx, registry, change), ctx.signal);
  if (flags.bool("bootstrap")) await bootstrap(ctx, registry, name);
  ctx.terminal.stdout.write(`${name}\n`);
  return 0;
}

async function leave(registry: BuilderRegistry, flags: FlagValues): Promise<void> {
  const [name, node] = [flags.string("name"), flags.string("node")];
  if (name === "") throw usageError("leave requires instance name");
  if (node === "") throw usageError("leave requires node name");
  await registry.store.locked(() => {
    const group = registry.store.find(name);
    if (!group) throw noBuilderFor("leave", name);
    const left = leaveNode(group, node);
    registry.store.config.remove(`refs/${group.name}/${node}`);
    registry.store.save(left);
  });
}

interface Change {
  readonly driver: string;
  readonly endpoint: string;
  readonly driverOpts: Record<string, string> | null;
  readonly daemonFlags: string[] | null;
}

function readChange(ctx: CommandContext, registry: BuilderRegistry): Change {
  const { flags, terminal } = ctx;
  const name = flags.string("name");
  if (name === "default") {
    throw usageError("default is a reserved name and cannot be used to identify builder instance");
  }
  if (flags.bool("append") && name === "") throw usageError("append requires a builder name");
  const known = name === "" ? undefined : registry.store.find(name);
  if (flags.bool("append") && !known) throw noBuilderFor("append", name);
  const host = terminal.env.BUILDKIT_HOST ?? "";
  const [argument = ""] = ctx.args;
  const fallback = argument === "" && host !== "" ? "remote" : "docker-container";
  const driver = flags.string("driver") || known?.driver || fallback;
  if (
    driver === "docker-container" &&
    flags.string("driver") === "" &&
    /^(tcp|unix|ssh):\/\//.test(argument)
  ) {
    throw new BuildError("unimplemented", `the driver "docker-container" isn't supported by kiln yet`, {
      hint: `a running BuildKit is used with: create --driver remote ${argument}`,
    });
  }
  checkDriver(driver);
  const endpoint = argument || host;
  if (endpoint === "") throw usageError("no remote endpoint provided");
  validateRemoteEndpoint(endpoint);
  const configFile = flags.string("buildkitd-config");
  if (configFile !== "" && !existsSync(configFile)) {
    throw usageError(
      `buildkit configuration file not found: ${configFile}: stat ${configFile}: no such file or directory`,
    );
  }
  if (configFile !== "" || registry.store.config.read("buildkitd.default.toml") !== undefined) {
    throw new BuildError("invalid_argument", "setting config file is not supported for remote driver");
  }
  const daemonFlags = flags.string("buildkitd-flags");
  return {
    driver,
    endpoint,
    driverOpts: readDriverOpts(flags.list("driver-opt")),
    daemonFlags: daemonFlags === "" ? null : shellWords(daemonFlags),
  };
}

function noBuilderFor(what: string, name: string): BuildError {
  return new BuildError("not_found", `failed to find instance ${JSON.stringify(name)} for ${what}`);
}

function readDriverOpts(values: readonly string[]): Record<string, string> | null {
  if (values.length === 0) return null;
  const opts: Record<string, string> = {};
  for (const field of values.flatMap((value) => csvFields(value))) {
    const equals = field.indexOf("=");
    if (equals < 0) throw usageError(`invalid value ${JSON.stringify(field)}, expecting k=v`);
    opts[field.slice(0, equals)] = field.slice(equals + 1);
  }
  return opts;
}

async function save(ctx: CommandContext, registry: BuilderRegistry, change: Change): Promise<string> {
  const { flags, terminal } = ctx;
  const { store } = registry;
  const name = flags.string("name") === "" ? freeName(registry) : validateName(flags.string("name"));
  if (!flags.bool("append") && dockerEndpoint(registry.env, registry.dockerConfig, name)) {
    throw usageError(`instance name ${JSON.stringify(name)} already exists as context builder`);
  }
  const known = store.find(name);
  if (!known && flags.bool("append")) throw noBuilderFor("append", name);
  if (known && flags.string("node") === "" && !flags.bool("append")) {
    throw usageError(
      `existing instance for ${JSON.stringify(name)} but no append mode, specify the node name to make changes for existing instances`,
    );
  }
  if (known && known.driver !== change.driver) {
    throw usageError(
      `existing instance for ${JSON.stringify(name)} but has mismatched driver ${JSON.stringify(known.driver)}`,
    );
  }
  const { group, needsRestart } = updateNode(known ?? emptyGroup(name, change.driver), {
    name: flags.string("node"),
    endpoint: change.endpoint,
    endpointGiven: true,
    append: flags.bool("append"),
    platforms: parsePlatformList(flags.list("platform"), localPlatform()),
    flags: change.daemonFlags,
    driverOpts: change.driverOpts,
    files: null,
  });
  if (needsRestart) warn(terminal.stderr, "new settings may not be used until builder is restarted");
  store.save(group);
  try {
    await checkNodes(ctx, registry, group);
  } catch (error) {
    if (known) store.save(known);
    else store.remove(name);
    throw error;
  }
  if (flags.bool("use")) {
    store.setCurrent({ key: registry.currentKey, name: group.name, global: false, asDefault: false });
  }
  return group.name;
}

function emptyGroup(name: string, driver: string): NodeGroup {
  return { name, driver, nodes: [], dynamic: false };
}

function freeName(registry: BuilderRegistry): string {
  for (let attempt = 0; attempt < MAX_NAME_TRIES; attempt++) {
    const name = randomName(attempt);
    if (!registry.store.find(name)) return name;
  }
  throw new BuildError("unknown", "failed to generate random name");
}

async function checkNodes(ctx: CommandContext, registry: BuilderRegistry, group: NodeGroup): Promise<void> {
  const builder = registry.find(group.name);
  const signal = withTimeout(ctx.flags, ctx.signal);
  await Promise.all(builder.nodes.map((node) => node.load(signal)));
  await Promise.all(builder.nodes.map((node) => node.close()));
  for (const node of builder.nodes) {
    if (node.error === undefined) continue;
    throw new BuildError(
      "unknown",
      `failed to initialize builder ${group.name} (${node.name}): ${errorMessage(node.error)}`,
      { cause: node.error },
    );
  }
}

/** Boots all nodes of a builder and shows how. */
export async function bootstrap(ctx: CommandContext, registry: BuilderRegistry, name: string): Promise<void> {
  const builder = registry.find(name);
  const printer = new Printer({
    mode: "auto",
    output: ctx.terminal.stderr,
    env: ctx.terminal.env,
    debug: ctx.debug,
  });
  try {
    await Promise.all(
      builder.nodes.map((node) => node.driver.boot({ signal: ctx.signal, onStatus: printer.update })),
    );
  } finally {
    printer.end();
    await Promise.all(builder.nodes.map((node) => node.close()));
  }
}
