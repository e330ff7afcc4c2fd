/** Registry credentials of this user: scoped directories first, then Docker's `config.json` and its helpers. */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { type Env, isMissing } from "./config-dir.ts";
import { type DockerConfig, readDockerConfigIn } from "./docker-config.ts";
import { isRecord, parseObject } from "./node-group.ts";

/** What is known about a registry; all absent for nothing. */
export interface Login {
  readonly username?: string;
  readonly password?: string;
  /** A refresh token, used instead of name and password. */
  readonly identityToken?: string;
  /** A bearer token that is sent as it is. */
  readonly registryToken?: string;
}

const HUB_KEY = "https://index.docker.io/v1/";
const HUB_HOSTS = ["registry-1.docker.io", "index.docker.io", "docker.io"];
/** Registries of Docker that take the Hub's credentials. */
const HUB_SIBLINGS = ["dhi.io", "registry.scout.docker.com"];
/** Answers are asked for again after this time; Docker's tokens live five minutes. */
const CACHE_MS = 4 * 60_000 + 50_000;
const MAX_HELPER_OUTPUT = 1 << 20;
const TOKEN_USER = "<token>";

/** Finds credentials; answers are kept for some minutes. */
export class RegistryLogins {
  readonly #config: DockerConfig;
  readonly #scopedDir: string;
  readonly #env: Env;
  readonly #cache = new Map<string, { readonly untilMs: number; readonly login: Login }>();

  /** `configDir` is Buildx's: its `config` folder holds credentials for single repositories and scopes. */
  constructor(config: DockerConfig, configDir: string, env: Env) {
    this.#config = config;
    this.#scopedDir = join(configDir, "config");
    this.#env = env;
  }

  /** Credentials for a host and, where scoped ones exist, for the scopes asked (`repository:name:pull,push`). */
  async find(host: string, scopes: readonly string[]): Promise<Login> {
    const scoped = scopedConfig(this.#scopedDir, host, scopes);
    const key = `${scoped ?? ""}\0${host}`;
    const known = this.#cache.get(key);
    if (known && known.untilMs > Date.now()) return known.login;
    let login: Login = {};
    if (scoped !== undefined) login = await this.#findIn(readDockerConfigIn(scoped), host);
    if (isEmpty(login)) login = await this.#findIn(this.#config, host);
    if (isEmpty(login) && HUB_SIBLINGS.includes(host)) login = await this.#findIn(this.#config, "docker.io");
    this.#cache.set(key, { login, untilMs: Date.now() + CACHE_MS });
    return login;
  }

  async #findIn(config: DockerConfig, host: string): Promise<Login> {
    const key = HUB_HOSTS.includes(host) ? HUB_KEY : host;
    const overlay = config === this.#config ? this.#overlayAuth(key) : undefined;
    if (overlay) return overlay;
    const helper = config.credHelpers[key] ?? config.credHelpers[host] ?? config.credsStore;
    if (helper) {
      const login = await askHelper(helper, key, this.#env);
      if (!isEmpty(login)) return login;
    }
    return loginOf(findAuth(config.auths, key));
  }

  /** `DOCKER_AUTH_CONFIG` stands before the file. */
  #overlayAuth(key: string): Login | undefined {
    const text = this.#env.DOCKER_AUTH_CONFIG;
    if (!text) return undefined;
    const { auths } = parseObject(text, "DOCKER_AUTH_CONFIG");
    const login = isRecord(auths)
      ? loginOf(findAuth(auths as Record<string, Record<string, unknown>>, key))
      : {};
    return isEmpty(login) ? undefined : login;
  }
}

function isEmpty(login: Login): boolean {
  return !login.username && !login.password && !login.identityToken && !login.registryToken;
}

function findAuth(
  auths: Readonly<Record<string, Record<string, unknown>>>,
  key: string,
): Record<string, unknown> | undefined {
  if (Object.hasOwn(auths, key)) return auths[key];
  const found = Object.entries(auths).find(([name]) => hostOf(name) === hostOf(key));
  return found?.[1];
}

/** The host of an `auths` key, which may be a URL with a path. */
function hostOf(key: string): string {
  return key.replace(/^https?:\/\//, "").split("/")[0] as string;
}

function loginOf(auth: Record<string, unknown> | undefined): Login {
  if (auth === undefined) return {};
  const text = (name: string): string => (typeof auth[name] === "string" ? (auth[name] as string) : "");
  let [username, password] = [text("username"), text("password")];
  const encoded = text("auth");
  if (encoded !== "") {
    const decoded = Buffer.from(encoded, "base64").toString();
    const colon = decoded.indexOf(":");
    if (colon >= 0)
      [username, password] = [decoded.slice(0, colon), decoded.slice(colon + 1).replace(/\0+$/, "")];
  }
  return {
    ...(username === "" ? {} : { username }),
    ...(password === "" ? {} : { password }),
    ...(text("identitytoken") === "" ? {} : { identityToken: text("identitytoken") }),
    ...(text("registrytoken") === "" ? {} : { registryToken: text("registrytoken") }),
  };
}

/** Runs `docker-credential-NAME get`. A helper that has nothing for the host, or isn't there, gives nothing. */
async function askHelper(name: string, key: string, env: Env): Promise<Login> {
  if (!/^[A-Za-z0-9._-]+$/.test(name)) {
    throw new BuildError("invalid_argument", `invalid credential helper ${JSON.stringify(name)}`);
  }
  const program = `docker-credential-${name}`;
  const answer = await new Promise<{ code: number | null; output: string }>((resolve, reject) => {
    const child = spawn(program, ["get"], {
      stdio: ["pipe", "pipe", "ignore"],
      env: env as NodeJS.ProcessEnv,
    });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (output.length > MAX_HELPER_OUTPUT) child.kill();
    });
    child.once("error", (error) =>
      reject(
        new BuildError("not_found", `error getting credentials - ${program}: ${errorMessage(error)}`, {
          cause: error,
        }),
      ),
    );
    child.once("close", (code) => resolve({ code, output }));
    child.stdin.on("error", () => undefined);
    child.stdin.end(key);
  });
  if (answer.code !== 0) {
    if (/credentials not found/i.test(answer.output)) return {};
    throw new BuildError(
      "unauthenticated",
      `error getting credentials - ${program} exited with code ${answer.code}`,
    );
  }
  const data = parseObject(answer.output, program);
  const [username, secret] = [String(data.Username ?? ""), String(data.Secret ?? "")];
  return username === TOKEN_USER ? { identityToken: secret } : { username, password: secret };
}

/** The directory of the most specific scoped credentials: `host[/repo][@scope[,scope]]`. */
function scopedConfig(root: string, host: string, scopes: readonly string[]): string | undefined {
  const wanted = scopes.flatMap((scope) => {
    const match = /^repository:([^:]+):(.+)$/.exec(scope);
    return match ? [{ repository: match[1] as string, actions: (match[2] as string).split(",") }] : [];
  });
  const [only] = wanted;
  const candidates: string[] = [];
  if (only && wanted.length === 1) {
    const parts = only.repository.split("/");
    for (let length = parts.length; length > 0; length--)
      candidates.push([host, ...parts.slice(0, length)].join("/"));
  }
  candidates.push(host);
  for (const candidate of candidates) {
    if (candidate.split("/").some((part) => part === ".." || part === "." || part === "")) continue;
    const dir = join(root, candidate);
    const parent = join(dir, "..");
    const base = dir.slice(parent.length + 1);
    const scopedName = namesIn(parent).find((name) => {
      if (!name.startsWith(`${base}@`)) return false;
      const allowed = name.slice(base.length + 1).split(",");
      return only?.actions.every((action) => allowed.includes(action)) ?? false;
    });
    if (scopedName !== undefined && namesIn(join(parent, scopedName)).includes("config.json")) {
      return join(parent, scopedName);
    }
    if (namesIn(dir).includes("config.json")) return dir;
  }
  return undefined;
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
