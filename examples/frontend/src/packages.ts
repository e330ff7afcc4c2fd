import type { FrontendClient } from "@kiln/client/frontend";
import type { State } from "@kiln/llb";
import type { Platform } from "@kiln/oci";

/** Ids of a distribution: its own, then those that it is like. */
export type Distribution = readonly string[];

/** Reads what distribution an image is of, from its `/etc/os-release`. Builds nothing but the image. */
export async function readDistribution(
  client: FrontendClient,
  base: State,
  platform: Platform,
): Promise<Distribution> {
  const { ref } = await client.solve({ definition: base.marshal({ platform }) });
  if (ref === undefined) return [];
  const entries = await ref.readDir("/etc", "os-release").catch(() => []);
  if (entries.length === 0) return [];
  const text = new TextDecoder().decode(await ref.readFile("/etc/os-release", { length: 1 << 16 }));
  const field = (name: string): string => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1] ?? "";
  return [field("ID"), ...field("ID_LIKE").split(" ")].filter((id) => id !== "");
}

const COMMANDS: Readonly<Record<string, (names: string) => string>> = {
  alpine: (names) => `apk add --no-cache ${names}`,
  debian: (names) =>
    `apt-get update && apt-get install -y --no-install-recommends ${names} && rm -rf /var/lib/apt/lists/*`,
  fedora: (names) => `dnf install -y --setopt=install_weak_deps=False ${names} && dnf clean all`,
};

/** The command that installs packages; an error for what can't be installed. */
export function installCommand(distribution: Distribution, names: readonly string[]): string | Error {
  const bad = names.find((name) => !/^[A-Za-z0-9][A-Za-z0-9+.:_=~-]*$/.test(name));
  if (bad !== undefined) return new Error(`${JSON.stringify(bad)} is no name of a package`);
  const known = distribution.find((id) => Object.hasOwn(COMMANDS, id));
  const command = known === undefined ? undefined : COMMANDS[known];
  if (command !== undefined) return command(names.join(" "));
  const what = distribution[0] === undefined ? "an image without /etc/os-release" : distribution[0];
  return new Error(`packages can't be installed on ${what}`);
}
