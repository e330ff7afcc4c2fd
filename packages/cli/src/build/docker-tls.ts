/** What a connection to a Docker Engine over TCP is secured with. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BuildError, nodeReason } from "@kiln/base";
import type { DockerConfig, DockerEndpoint, Env } from "@kiln/driver";
import { sha256Hex } from "@kiln/oci";

/** Options of Node's TLS sockets. */
export interface DockerTls {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
  /** False when any server will do. */
  readonly rejectUnauthorized: boolean;
}

/**
 * As the docker CLI decides: of the default context by `DOCKER_TLS_VERIFY` and `DOCKER_TLS`, with the files in
 * `DOCKER_CERT_PATH`; of another context by the files that are stored for it. Undefined for a plain connection.
 */
export function dockerTls(
  endpoint: DockerEndpoint,
  machine: { readonly env: Env; readonly dockerConfig: DockerConfig },
): DockerTls | undefined {
  const { env, dockerConfig } = machine;
  if (endpoint.context === "default") {
    const verifies = Boolean(env.DOCKER_TLS_VERIFY);
    if (!verifies && !env.DOCKER_TLS) return undefined;
    const dir = env.DOCKER_CERT_PATH || dockerConfig.directory;
    const files = readFiles(dir);
    if (verifies && files.ca === undefined) {
      const path = join(dir, "ca.pem");
      throw new BuildError(
        "failed_precondition",
        `unable to resolve docker endpoint: open ${path}: no such file or directory`,
      );
    }
    return { ...files, rejectUnauthorized: verifies };
  }
  const dir = join(dockerConfig.directory, "contexts", "tls", sha256Hex(endpoint.context), "docker");
  const skipsVerify = endpoint.skipsTlsVerify === true;
  if (!existsSync(dir)) return skipsVerify ? { rejectUnauthorized: false } : undefined;
  return { ...readFiles(dir), rejectUnauthorized: !skipsVerify };
}

function readFiles(dir: string): Omit<DockerTls, "rejectUnauthorized"> {
  const [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map((name) => readIfThere(join(dir, name)));
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
}

function readIfThere(path: string): Buffer | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new BuildError("failed_precondition", `open ${path}: ${nodeReason(error)}`, { cause: error });
  }
}
