import { isBuildError } from "@kiln/base";
import { image as imageSource, joinPath, type OpOptions, type State, scratch } from "@kiln/llb";
import { formatReference, type Platform, parseReference } from "@kiln/oci";
import { cut } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { parseImage } from "../compile/image.ts";
import type { FrontendBackend } from "./backend.ts";
import type { SbomSettings } from "./config.ts";

const SOURCES = "/run/src/";
const OUTPUT = "/run/out/";
const CORE = "sbom";

/** Predicate type of what scanners write. */
export const SPDX_PREDICATE = "https://spdx.dev/Document";

/** Metadata of an attestation that an SBOM scanner made. */
export const sbomMetadata: ReadonlyMap<string, Uint8Array> = new Map([
  ["reason", new TextEncoder().encode("sbom")],
  ["sbom-core", new TextEncoder().encode(CORE)],
]);

/** File systems to scan. */
export interface ScanTarget {
  /** Platform id, for the name of the step. */
  readonly id: string;
  readonly core: State;
  readonly extras: ReadonlyMap<string, State>;
  readonly options: OpOptions;
}

/** Makes the state that holds the statements about a target. */
export type Scanner = (target: ScanTarget) => State;

/** Looks a scanner image up. Throws a problem for one without a command. */
export async function createScanner(
  backend: Pick<FrontendBackend, "resolveImageConfig">,
  sbom: SbomSettings,
  options: { readonly platform: Platform; readonly resolveMode: string | undefined },
): Promise<Scanner> {
  const answer = await backend.resolveImageConfig(normalName(sbom.generator), options);
  if ("redirect" in answer) throw new Problem(`scanner ${sbom.generator} is no image: ${answer.redirect}`);
  const { config } = parseImage(answer.config);
  const args = [...config.entrypoint, ...config.cmd];
  if (args.length === 0) throw new Problem(`scanner ${answer.ref} does not have cmd`);
  return (target) => {
    let state = imageSource(answer.ref, { platform: options.platform }).setDir(config.workingDir);
    for (const entry of [...config.env, ...scanEnv(sbom, target)]) {
      const [key, value] = cut(entry, "=");
      state = state.setEnv(key, value);
    }
    const image = imageSource(answer.ref, { platform: options.platform });
    const isWindows = options.platform.os === "windows";
    const run = state.run({
      ...target.options,
      args,
      name: `[${target.id}] generating sbom using ${answer.ref}`,
      mounts: [
        isWindows
          ? {
              target: "/tmp",
              source: image.file({ kind: "mkdir", path: "/tmp", mode: 0o777, parents: true }),
              selector: "/tmp",
              noOutput: true,
            }
          : { target: "/tmp", tmpfs: {} },
        { target: joinPath(SOURCES, "core", CORE), source: target.core, readonly: true },
        ...[...target.extras].map(([name, source]) => ({
          target: joinPath(SOURCES, "extras", `${CORE}-${name}`),
          source,
          readonly: true,
        })),
        { target: OUTPUT, source: scratch() },
      ],
    });
    return run.mount(OUTPUT);
  };
}

function scanEnv(sbom: SbomSettings, target: ScanTarget): string[] {
  const env = [
    `BUILDKIT_SCAN_DESTINATION=${OUTPUT}`,
    `BUILDKIT_SCAN_SOURCE=${joinPath(SOURCES, "core", CORE)}`,
  ];
  if (target.extras.size > 0) env.push(`BUILDKIT_SCAN_SOURCE_EXTRAS=${joinPath(SOURCES, "extras/")}`);
  for (const [key, value] of sbom.parameters) env.push(`BUILDKIT_SCAN_${key}=${value}`);
  return env;
}

function normalName(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`could not parse reference "${name}": ${error.message}`);
  }
}
