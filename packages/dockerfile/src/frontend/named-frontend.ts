import { isBuildError } from "@kiln/base";
import type { Definition } from "@kiln/llb";
import { Problem } from "../base/problem.ts";
import type { FrontendBackend } from "./backend.ts";
import { readConfig } from "./config.ts";
import { ContextFiles } from "./context.ts";
import { buildErrorOf } from "./errors.ts";
import { findNamedContext } from "./named-context.ts";

/** What a client has put in the place of an image, by a `context:` option. */
export interface ReplacedImage {
  readonly definition: Definition;
  /** How its processes run, as far as that is known. */
  readonly config:
    | {
        readonly env: readonly string[];
        readonly entrypoint: readonly string[];
        readonly workingDir: string;
        readonly labels: ReadonlyMap<string, string>;
      }
    | undefined;
}

/**
 * The named context that stands for an image outside of a Dockerfile; undefined when there is none.
 *
 * @throws BuildError for a name that is no image name, and for options that make no sense.
 */
export async function loadReplacedImage(
  backend: FrontendBackend,
  name: string,
): Promise<ReplacedImage | undefined> {
  try {
    const config = readConfig(backend);
    const files = new ContextFiles(backend, config);
    const found = await findNamedContext({ backend, config, files }, name, {})?.load();
    if (found === undefined) return undefined;
    return { definition: found.state.marshal(files.marshalOptions()), config: found.image?.config };
  } catch (error) {
    throw error instanceof Problem && !isBuildError(error) ? buildErrorOf(error, undefined) : error;
  }
}
