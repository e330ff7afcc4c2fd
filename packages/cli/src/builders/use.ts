import { BuildError, errorMessage } from "@kiln/base";
import { dockerEndpoint, validateName } from "@kiln/driver";
import type { CommandBody } from "../command/command.ts";
import { openRegistry } from "./open-registry.ts";

/** `kiln use`. */
export const useCommand: CommandBody = {
  usage: "[OPTIONS] NAME",
  flags: [
    { name: "default", kind: "bool", usage: "Set builder as default for current context" },
    { name: "global", kind: "bool", usage: "Builder persists context changes" },
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const registry = openRegistry(ctx);
    const name = ctx.args[0] ?? ctx.flags.string("builder");
    const select = (chosen: string): void =>
      registry.store.setCurrent({
        key: registry.currentKey,
        name: chosen,
        global: ctx.flags.bool("global"),
        asDefault: ctx.flags.bool("default"),
      });
    await registry.store.locked(() => {
      if (isBuilder(name, registry.store)) return select(name);
      const current = dockerEndpoint(registry.env, registry.dockerConfig)?.context;
      if (name === "default" || name === current) return select("");
      if (name !== "" && dockerEndpoint(registry.env, registry.dockerConfig, name)) {
        throw new BuildError(
          "invalid_argument",
          `run \`docker context use ${name}\` to switch to context ${JSON.stringify(name)}`,
        );
      }
      throw new BuildError("not_found", notFound(name));
    }, ctx.signal);
    return 0;
  },
};

function isBuilder(name: string, store: { find(name: string): unknown }): boolean {
  try {
    return store.find(name) !== undefined;
  } catch {
    return false;
  }
}

function notFound(name: string): string {
  try {
    validateName(name);
  } catch (error) {
    return `failed to find instance ${JSON.stringify(name)}: ${errorMessage(error)}`;
  }
  return `no builder ${JSON.stringify(name)} found`;
}
