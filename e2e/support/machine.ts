import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/**
 * What this machine needs to reach its package registries, gathered when a test starts: nothing of it stands in the
 * repository. What may hold a password goes in as a secret, the rest as a named context.
 */
export interface MachineAccess {
  /** A folder with copies of apt's settings, as they lie below `/`; to be bound over `/etc/apt` and the keyrings. */
  readonly aptFolder: string;
  /** Arguments of `kiln build`: secrets `npmrc`, `apt-auth`, `ca` and build arguments of a proxy. */
  readonly buildArgs: readonly string[];
}

const CA_FILES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const PROXY_NAMES = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/** Gathers the machine's settings below a folder of the test. */
export function gatherMachineAccess(folder: string): MachineAccess {
  const work = mkdtempSync(join(folder, "machine-"));
  return {
    aptFolder: gatherApt(join(work, "apt")),
    buildArgs: [...secretArgs(work), ...proxyArgs()],
  };
}

function gatherApt(folder: string): string {
  for (const name of ["/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/apt/trusted.gpg.d"]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  const settings = globSync("/etc/apt/apt.conf.d/*").filter((file) =>
    /^\s*Acquire::/m.test(readFileSync(file, "utf8")),
  );
  const sources = ["/etc/apt/sources.list", ...globSync("/etc/apt/sources.list.d/*.{list,sources}")];
  const keys = [...globSync("/etc/apt/trusted.gpg.d/*"), ...globSync("/usr/share/keyrings/*")];
  mkdirSync(join(folder, "/usr/share/keyrings"), { recursive: true });
  for (const file of [...settings, ...sources, ...keys]) {
    if (!existsSync(file)) continue;
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(file, join(folder, file), { dereference: true });
  }
  return folder;
}

/** One file per secret; one that the machine doesn't have is empty. */
function secretArgs(work: string): string[] {
  const npmrc = ["/etc/npmrc", "/usr/etc/npmrc", join(homedir(), ".npmrc")];
  const auth = ["/etc/apt/auth.conf", ...globSync("/etc/apt/auth.conf.d/*.conf")];
  const ca = [process.env.NODE_EXTRA_CA_CERTS ?? "", ...CA_FILES].filter((file) => existsSync(file));
  const secrets: Record<string, string> = {
    // A path in it would be one of this machine.
    npmrc: [contents(npmrc), registrySetting()]
      .join("\n")
      .replace(/^\s*(?:cafile|prefix|cache|nodedir)\s*=.*$/gm, ""),
    "apt-auth": contents(auth),
    ca: contents(ca.slice(0, 1)),
  };
  return Object.entries(secrets).flatMap(([id, text]) => {
    const file = join(work, id);
    writeFileSync(file, text, { mode: 0o600 });
    return ["--secret", `id=${id},src=${file}`];
  });
}

function registrySetting(): string {
  const registry = process.env.npm_config_registry ?? process.env.NPM_CONFIG_REGISTRY;
  return registry === undefined ? "" : `registry=${registry}\n`;
}

function contents(files: readonly string[]): string {
  return files
    .filter((file) => existsSync(file))
    .map((file) => readFileSync(file, "utf8"))
    .join("\n");
}

function proxyArgs(): string[] {
  return PROXY_NAMES.filter((name) => process.env[name]).flatMap((name) => ["--build-arg", name]);
}
