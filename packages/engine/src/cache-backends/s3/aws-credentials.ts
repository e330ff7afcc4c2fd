import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import type { CacheEnv } from "../cache-attrs.ts";
import type { ObjectHttp } from "../object/object-http.ts";
import type { AwsKeys } from "./sigv4.ts";

/** Keys with the time until which they hold. */
interface TimedKeys {
  readonly keys: AwsKeys;
  readonly expiresAtMs: number;
}

/** Keys are replaced this long before they expire. */
const EXPIRY_MARGIN_MS = 5 * 60_000;
const IMDS = "http://169.254.169.254";
const ECS = "http://169.254.170.2";
const IMDS_TOKEN_SECONDS = "300";

/**
 * The daemon's own keys, where AWS's tools look for them: environment, shared credentials file, web
 * identity, container, instance. Profiles with roles, SSO or processes are refused.
 */
export class AwsCredentials {
  readonly #http: ObjectHttp;
  readonly #env: CacheEnv;
  readonly #region: string;
  #current: TimedKeys | undefined;

  constructor(http: ObjectHttp, env: CacheEnv, region: string) {
    this.#http = http;
    this.#env = env;
    this.#region = region;
  }

  /** @throws BuildError `unauthenticated` when there are none. */
  async get(signal: AbortSignal): Promise<AwsKeys> {
    if (this.#current === undefined || this.#current.expiresAtMs - EXPIRY_MARGIN_MS < Date.now())
      this.#current = await this.#find(signal);
    return this.#current.keys;
  }

  async #find(signal: AbortSignal): Promise<TimedKeys> {
    const env = this.#env;
    const fromEnv = keysOf(env.AWS_ACCESS_KEY_ID, env.AWS_SECRET_ACCESS_KEY, env.AWS_SESSION_TOKEN);
    if (fromEnv !== undefined) return { keys: fromEnv, expiresAtMs: Number.POSITIVE_INFINITY };
    const shared = await this.#sharedFile();
    if (shared !== undefined) return { keys: shared, expiresAtMs: Number.POSITIVE_INFINITY };
    if (env.AWS_WEB_IDENTITY_TOKEN_FILE && env.AWS_ROLE_ARN)
      return await this.#webIdentity(env.AWS_WEB_IDENTITY_TOKEN_FILE, env.AWS_ROLE_ARN, signal);
    const container = this.#containerUrl();
    if (container !== undefined) return await this.#container(container, signal);
    if (env.AWS_EC2_METADATA_DISABLED?.toLowerCase() !== "true") return await this.#instance(signal);
    throw new BuildError("unauthenticated", "no AWS credentials for the s3 cache");
  }

  async #sharedFile(): Promise<AwsKeys | undefined> {
    const file =
      this.#env.AWS_SHARED_CREDENTIALS_FILE ?? join(this.#env.HOME ?? homedir(), ".aws/credentials");
    const profile = this.#env.AWS_PROFILE ?? "default";
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
    const section = parseIni(text).get(profile);
    const keys = keysOf(
      section?.get("aws_access_key_id"),
      section?.get("aws_secret_access_key"),
      section?.get("aws_session_token"),
    );
    if (section !== undefined && keys === undefined)
      throw new BuildError("unimplemented", `AWS profile ${profile}: only profiles with keys are supported`);
    return keys;
  }

  async #webIdentity(tokenFile: string, role: string, signal: AbortSignal): Promise<TimedKeys> {
    const token = (await readFile(tokenFile, "utf8")).trim();
    const form = new URLSearchParams({
      Action: "AssumeRoleWithWebIdentity",
      Version: "2011-06-15",
      RoleArn: role,
      RoleSessionName: this.#env.AWS_ROLE_SESSION_NAME ?? "kiln",
      WebIdentityToken: token,
    });
    const bytes = new TextEncoder().encode(form.toString());
    const suffix = this.#region.startsWith("cn-") ? ".cn" : "";
    const answer = await this.#http.small(() => ({
      method: "POST",
      url: new URL(`https://sts.${this.#region}.amazonaws.com${suffix}/`),
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: { sizeBytes: bytes.length, open: () => [bytes] },
      signal,
    }));
    const xml = new TextDecoder().decode(answer.body);
    const field = (name: string): string | undefined =>
      new RegExp(`<${name}>([^<]{1,8192})</${name}>`).exec(xml)?.[1];
    return timed(field("AccessKeyId"), field("SecretAccessKey"), {
      token: field("SessionToken"),
      expiration: field("Expiration"),
    });
  }

  #containerUrl(): URL | undefined {
    const relative = this.#env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;
    if (relative) return new URL(relative, ECS);
    const full = this.#env.AWS_CONTAINER_CREDENTIALS_FULL_URI;
    return full ? new URL(full) : undefined;
  }

  async #container(url: URL, signal: AbortSignal): Promise<TimedKeys> {
    const file = this.#env.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE;
    const token = file ? (await readFile(file, "utf8")).trim() : this.#env.AWS_CONTAINER_AUTHORIZATION_TOKEN;
    const answer = await this.#http.small(() => ({
      method: "GET",
      url,
      ...(token ? { headers: { authorization: token } } : {}),
      signal,
    }));
    return timedFromJson(answer.body);
  }

  async #instance(signal: AbortSignal): Promise<TimedKeys> {
    const both = AbortSignal.any([signal, AbortSignal.timeout(5_000)]);
    const ask = async (method: string, path: string, headers: Record<string, string>): Promise<Uint8Array> =>
      (await this.#http.small(() => ({ method, url: new URL(path, IMDS), headers, signal: both }))).body;
    try {
      const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": IMDS_TOKEN_SECONDS };
      const token = new TextDecoder().decode(await ask("PUT", "/latest/api/token", ttl));
      const auth = { "x-aws-ec2-metadata-token": token };
      const base = "/latest/meta-data/iam/security-credentials/";
      const [role = ""] = new TextDecoder()
        .decode(await ask("GET", base, auth))
        .trim()
        .split("\n");
      return timedFromJson(await ask("GET", base + encodeURIComponent(role), auth));
    } catch (error) {
      signal.throwIfAborted();
      throw new BuildError("unauthenticated", "no AWS credentials for the s3 cache", { cause: error });
    }
  }
}

function keysOf(id?: string, secret?: string, token?: string): AwsKeys | undefined {
  if (!id || !secret) return undefined;
  return { accessKeyId: id, secretAccessKey: secret, sessionToken: token || undefined };
}

function timed(
  id: string | undefined,
  secret: string | undefined,
  rest: { readonly token: string | undefined; readonly expiration: string | undefined },
): TimedKeys {
  const keys = keysOf(id, secret, rest.token);
  if (keys === undefined) throw new BuildError("unauthenticated", "AWS gave no keys for the s3 cache");
  const expiresAtMs = Date.parse(rest.expiration ?? "");
  return { keys, expiresAtMs: Number.isNaN(expiresAtMs) ? Number.POSITIVE_INFINITY : expiresAtMs };
}

function timedFromJson(body: Uint8Array): TimedKeys {
  const doc = JSON.parse(new TextDecoder().decode(body)) as Readonly<Record<string, unknown>>;
  const text = (name: string): string | undefined => {
    const value = doc[name];
    return typeof value === "string" ? value : undefined;
  };
  return timed(text("AccessKeyId"), text("SecretAccessKey"), {
    token: text("Token"),
    expiration: text("Expiration"),
  });
}

/** Sections of an INI file. */
function parseIni(text: string): Map<string, Map<string, string>> {
  const out = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  for (const line of text.split("\n")) {
    const name = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line)?.[1];
    if (name !== undefined) {
      section = new Map();
      out.set(name, section);
      continue;
    }
    const match = /^\s*([^#;=\s][^=]*?)\s*=\s*(.*?)\s*$/.exec(line);
    if (match) section?.set(match[1]!.toLowerCase(), match[2]!);
  }
  return out;
}
