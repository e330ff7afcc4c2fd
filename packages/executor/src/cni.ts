import { readFileSync } from "node:fs";
import { BuildError, errorMessage } from "@kiln/base";
import { findProgram } from "./runtime-choice.ts";
import type { Zygote } from "./zygote.ts";

// The Container Network Interface: network plugins are programs that read their configuration and what the
// plugins before them did, and write what they did. https://github.com/containernetworking/cni/blob/main/SPEC.md

/** A JSON object. */
type JsonObject = { readonly [key: string]: unknown };

/** A list of plugins that together make a network. */
export interface CniNetwork {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly JsonObject[];
  /** Name of the interface in the container. */
  readonly interfaceName: string;
}

/** The network of every container: its loopback device. */
export function loopbackNetwork(type = "loopback"): CniNetwork {
  return { name: "cni-loopback", cniVersion: "0.3.1", plugins: [{ type }], interfaceName: "lo" };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/**
 * Reads the text of a configuration, of a list (`.conflist`) or of one plugin.
 *
 * @throws BuildError `invalid_argument`
 */
export function parseCniConfig(text: string, isList: boolean): CniNetwork {
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", `error parsing CNI configuration: ${errorMessage(error)}`);
  }
  if (!isObject(config))
    throw new BuildError("invalid_argument", "error parsing CNI configuration: no object");
  const plugins = isList ? config.plugins : [config];
  if (!Array.isArray(plugins) || plugins.length === 0 || !plugins.every(isObject)) {
    throw new BuildError("invalid_argument", "error parsing CNI configuration list: no plugins");
  }
  if (plugins.some((plugin) => textOf(plugin.type) === "" || textOf(plugin.type).includes("/"))) {
    throw new BuildError("invalid_argument", "error parsing CNI configuration: plugin without a type");
  }
  const name = textOf(config.name);
  if (name === "") throw new BuildError("invalid_argument", "error parsing CNI configuration: no name");
  return { name, cniVersion: textOf(config.cniVersion) || "0.1.0", plugins, interfaceName: "eth0" };
}

/** Reads a configuration file. @throws BuildError `failed to read cni config …` */
export function readCniConfig(path: string): CniNetwork {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new BuildError(
      "not_found",
      `failed to read cni config ${JSON.stringify(path)}: ${errorMessage(error)}`,
      { cause: error },
    );
  }
  return parseCniConfig(text, path.endsWith(".conflist"));
}

/** A container as plugins know it. */
export interface CniContainer {
  readonly id: string;
  /** Path of its network namespace, as the zygote sees it; "" when that is gone. */
  readonly netns: string;
  /** `KEY=value` pairs of CNI_ARGS. */
  readonly args: readonly string[];
}

/** Runs network plugins, in the zygote's view of the file system. */
export class CniRunner {
  readonly #zygote: Zygote;
  readonly #path: string;
  /** Namespace that plugins run in, when it isn't the daemon's. */
  readonly #inNetns: string | undefined;

  /** `dirs` are searched for plugins. */
  constructor(zygote: Zygote, dirs: readonly string[], inNetns?: string) {
    this.#zygote = zygote;
    this.#path = dirs.join(":");
    this.#inNetns = inNetns;
  }

  /** Adds a container to networks, in order; returns what the last plugin of each did. What was done is undone on failure. */
  async add(networks: readonly CniNetwork[], container: CniContainer): Promise<unknown[]> {
    const results: unknown[] = [];
    for (const [index, network] of networks.entries()) {
      let result: unknown;
      try {
        for (const plugin of network.plugins) {
          result = await this.#run("ADD", { network, plugin, container, prevResult: result });
        }
      } catch (error) {
        await this.del(networks.slice(0, index + 1), container, [...results, result]).catch(() => undefined);
        throw error;
      }
      results.push(result);
    }
    return results;
  }

  /** Removes it from them; every plugin gets its turn. @throws the first failure */
  async del(
    networks: readonly CniNetwork[],
    container: CniContainer,
    results: readonly unknown[],
  ): Promise<void> {
    const errors: unknown[] = [];
    for (const [index, network] of [...networks.entries()].reverse()) {
      for (const plugin of [...network.plugins].reverse()) {
        try {
          await this.#run("DEL", { network, plugin, container, prevResult: results[index] });
        } catch (error) {
          errors.push(error);
        }
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  async #run(
    command: "ADD" | "DEL",
    call: { network: CniNetwork; plugin: JsonObject; container: CniContainer; prevResult: unknown },
  ): Promise<unknown> {
    const { network, plugin, container, prevResult } = call;
    const type = textOf(plugin.type);
    const program = findProgram(type, this.#path);
    if (program === undefined) {
      throw new BuildError(
        "not_found",
        `failed to find plugin ${JSON.stringify(type)} in path [${this.#path}]`,
      );
    }
    const config = {
      ...plugin,
      name: network.name,
      cniVersion: network.cniVersion,
      ...(prevResult ? { prevResult } : {}),
    };
    const env = [
      `CNI_COMMAND=${command}`,
      `CNI_CONTAINERID=${container.id}`,
      `CNI_NETNS=${container.netns}`,
      `CNI_IFNAME=${network.interfaceName}`,
      `CNI_ARGS=${container.args.join(";")}`,
      `CNI_PATH=${this.#path}`,
    ];
    const { code, stdout, stderr } = await this.#zygote.request("command", {
      argv: [program],
      env,
      stdin: JSON.stringify(config),
      ...(this.#inNetns === undefined ? {} : { netns: this.#inNetns }),
    });
    if (code !== 0)
      throw new BuildError(
        "unknown",
        `plugin type=${JSON.stringify(type)} failed (${command.toLowerCase()}): ${pluginError(stdout, stderr, code)}`,
      );
    return stdout.trim() === "" ? undefined : JSON.parse(stdout);
  }
}

/** What a failed plugin says: an object with `msg` and `details`, or something else. */
function pluginError(stdout: string, stderr: string, code: number): string {
  try {
    const error: unknown = JSON.parse(stdout);
    if (isObject(error) && textOf(error.msg) !== "") {
      return [textOf(error.msg), textOf(error.details)].filter((text) => text !== "").join("; ");
    }
  } catch {
    // No CNI error.
  }
  return (stderr.trim() || stdout.trim() || `exit code ${code}`).slice(0, 4096);
}
