/** What the user's machine remembers about each build: where its context and Dockerfile were. */
import { BuildError, redactUrls } from "@kiln/base";
import { goJson } from "@kiln/formats";
import type { ConfigDir } from "./config-dir.ts";
import { parseObject } from "./node-group.ts";

/** One build's place on this machine. Paths are absolute, or a remote context's URL (kept without its password). */
export interface BuildPlace {
  readonly target: string;
  readonly localPath: string;
  readonly dockerfilePath: string;
  readonly groupRef?: string;
}

/** The `refs` folder of the configuration directory. */
export class LocalState {
  readonly #config: ConfigDir;

  constructor(config: ConfigDir) {
    this.#config = config;
  }

  save(ref: { builder: string; node: string; id: string }, place: BuildPlace): void {
    const { builder, node, id } = ref;
    const text = goJson({
      Target: place.target,
      LocalPath: redactUrls(place.localPath),
      DockerfilePath: redactUrls(place.dockerfilePath),
      GroupRef: place.groupRef || undefined,
    });
    this.#config.write(`refs/${part(builder)}/${part(node)}/${part(id)}`, text, {
      mode: 0o644,
      volatile: true,
    });
    if (this.#config.read("refs/version") === undefined)
      this.#config.write("refs/version", "2", { volatile: true });
  }

  read(ref: { builder: string; node: string; id: string }): BuildPlace | undefined {
    const file = `refs/${part(ref.builder)}/${part(ref.node)}/${part(ref.id)}`;
    const text = this.#config.read(file);
    if (text === undefined) return undefined;
    const data = parseObject(text, file);
    return {
      target: String(data.Target ?? ""),
      localPath: String(data.LocalPath ?? ""),
      dockerfilePath: String(data.DockerfilePath ?? ""),
      groupRef: String(data.GroupRef ?? ""),
    };
  }

  /** Several builds of one command. */
  saveGroup(id: string, refs: readonly string[], targets: readonly string[]): void {
    this.#config.write(
      `refs/__group__/${part(id)}`,
      goJson({ Targets: targets.length > 0 ? targets : undefined, Refs: refs }),
      { volatile: true },
    );
  }

  readGroup(
    id: string,
  ): { readonly targets: readonly string[]; readonly refs: readonly string[] } | undefined {
    const file = `refs/__group__/${part(id)}`;
    const text = this.#config.read(file);
    if (text === undefined) return undefined;
    const data = parseObject(text, file);
    const list = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
    return { targets: list(data.Targets), refs: list(data.Refs) };
  }

  remove(ref: { builder: string; node: string; id: string }): void {
    this.#config.remove(`refs/${part(ref.builder)}/${part(ref.node)}/${part(ref.id)}`);
  }

  removeBuilder(name: string): void {
    this.#config.remove(`refs/${part(name)}`);
  }
}

/** One part of a path, or an error: names come from files that others write. */
function part(name: string): string {
  if (name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name)) return name;
  throw new BuildError("invalid_argument", `invalid name ${JSON.stringify(name)} in a build reference`);
}
