/** `kiln rm`. */
import { BuildError, errorMessage } from "@kiln/base";
import type { Builder, BuilderRegistry } from "@kiln/driver";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { confirm } from "../prompt.ts";
import { timeoutFlag, withTimeout } from "./common-flags.ts";
import { openRegistry } from "./open-registry.ts";

/** The command. */
export const rmCommand: CommandBody = {
  usage: "[OPTIONS] [NAME...]",
  flags: [
    { name: "all-inactive", kind: "bool", usage: "Remove all inactive builders" },
    { name: "force", short: "f", kind: "bool", usage: "Do not prompt for confirmation" },
    { name: "keep-daemon", kind: "bool", usage: "Keep the BuildKit daemon running" },
    { name: "keep-state", kind: "bool", usage: "Keep BuildKit state" },
    timeoutFlag,
  ],
  minArgs: 0,
  maxArgs: Number.POSITIVE_INFINITY,
  async run(ctx) {
    const { flags } = ctx;
    const registry = openRegistry(ctx);
    if (flags.bool("all-inactive")) return removeInactive(ctx, registry);
    const names = ctx.args.length > 0 ? ctx.args : [flags.string("builder") || registry.find().name];
    const results = await Promise.all(names.map((name) => removeAndTell(ctx, registry, name)));
    if (results.includes(false)) throw new BuildError("unknown", "failed to remove one or more builders");
    return 0;
  },
};

async function removeAndTell(ctx: CommandContext, registry: BuilderRegistry, name: string): Promise<boolean> {
  try {
    await removeBuilder(ctx, registry, registry.find(name));
    ctx.terminal.stderr.write(`${name} removed\n`);
    return true;
  } catch (error) {
    ctx.terminal.stderr.write(`failed to remove ${name}: ${errorMessage(error)}\n`);
    return false;
  }
}

/** The entry goes also when the backend can't be reached; the failure is told all the same. */
async function removeBuilder(
  ctx: CommandContext,
  registry: BuilderRegistry,
  builder: Builder,
): Promise<void> {
  const { flags } = ctx;
  if (builder.isEmbedded) {
    throw usageError(
      `context builder cannot be removed, run \`docker context rm ${builder.name}\` to remove this context`,
    );
  }
  let failure: unknown;
  for (const node of builder.nodes) {
    if (flags.bool("keep-daemon")) break;
    try {
      await node.driver.stop(ctx.signal);
      await node.driver.remove({ keepState: flags.bool("keep-state"), keepDaemon: false });
      await node.close();
    } catch (error) {
      failure ??= new BuildError("unknown", `failed to remove node ${node.name}: ${errorMessage(error)}`, {
        cause: error,
      });
    }
  }
  await registry.store.locked(() => registry.store.remove(builder.name), ctx.signal);
  if (failure !== undefined) throw failure;
}

async function removeInactive(ctx: CommandContext, registry: BuilderRegistry): Promise<number> {
  if (ctx.args.length > 0) throw usageError("cannot specify builder name when --all-inactive is set");
  const warning =
    "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue?";
  if (!ctx.flags.bool("force") && !(await confirm(ctx, warning))) return 0;
  const signal = withTimeout(ctx.flags, ctx.signal);
  let isComplete = true;
  for (const builder of registry.list()) {
    if (builder.isEmbedded || builder.group.dynamic) continue;
    await Promise.all(builder.nodes.map((node) => node.load(signal)));
    const isRunning = builder.nodes.some((node) => node.data?.status === "running");
    await Promise.all(builder.nodes.map((node) => node.close()));
    if (!isRunning) isComplete = (await removeAndTell(ctx, registry, builder.name)) && isComplete;
  }
  if (!isComplete) throw new BuildError("unknown", "failed to remove one or more builders");
  return 0;
}
