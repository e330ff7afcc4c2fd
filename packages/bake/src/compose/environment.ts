import { errorMessage } from "@kiln/base";
import { decodeSource } from "@kiln/hcl";
import type { BakeFile, BakeHost } from "../host.ts";
import { joinPath } from "../paths.ts";
import { parseDotEnv } from "./dotenv.ts";
import { loadProject } from "./project.ts";
import { notingLookup } from "./template.ts";

/** The variables that Compose files see: those of `.env`, the environment over them, and `--var` over all. */
export function composeEnvironment(
  host: BakeHost,
  vars: ReadonlyMap<string, string>,
  { fromEnvironment, unset }: { readonly fromEnvironment: boolean; readonly unset?: Set<string> },
): Map<string, string> {
  const current = new Map(fromEnvironment ? host.environ() : []);
  const path = joinPath(host.cwd, ".env");
  const data = host.stat(path)?.kind === "file" ? host.readFile(path) : undefined;
  const fromFile = new Map<string, string>();
  const lookup = notingLookup((name) => current.get(name), unset);
  if (data !== undefined) parseDotEnv(decodeSource(data), fromFile, lookup);
  return new Map([...fromFile, ...current, ...vars]);
}

/** Whether a file is a Compose file. */
export interface ComposeCheck {
  readonly compose: boolean;
  /** Why it isn't, when its name doesn't tell. */
  readonly problem?: string;
}

/** Tells from the name, or else from the contents. Mistakes in a file named like a Compose file are thrown. */
export function isComposeFile(
  file: BakeFile,
  environment: () => ReadonlyMap<string, string>,
  { host, unset }: { readonly host: BakeHost; readonly unset?: Set<string> },
): ComposeCheck {
  const name = file.name.toLowerCase();
  let variables: ReadonlyMap<string, string>;
  try {
    variables = environment();
  } catch (error) {
    return { compose: false, problem: errorMessage(error) };
  }
  const validate = (): void => {
    loadProject([{ name: "", data: file.data }], host, {
      environment: variables,
      consistent: false,
      ...(unset === undefined ? {} : { unset }),
    });
  };
  if (name.endsWith(".yml") || name.endsWith(".yaml")) {
    validate();
    return { compose: true };
  }
  if (name.endsWith(".json") || name.endsWith(".hcl")) return { compose: false };
  try {
    validate();
    return { compose: true };
  } catch (error) {
    return { compose: false, problem: errorMessage(error) };
  }
}
