import { readFile } from "node:fs/promises";
import { BuildError } from "@kiln/base";
import type { CacheEnv } from "../cache-attrs.ts";
import type { ObjectHttp } from "../object/object-http.ts";

const STORAGE = "https://storage.azure.com/";
const IMDS = "http://169.254.169.254/metadata/identity/oauth2/token";
const IMDS_TIMEOUT_MS = 5_000;
const EXPIRY_MARGIN_MS = 5 * 60_000;

/**
 * Tokens for Azure Storage of the daemon's own identity: a client secret or a federated token from the
 * environment (`AZURE_TENANT_ID` …), or the machine's managed identity.
 */
export class AzureCredentials {
  readonly #http: ObjectHttp;
  readonly #env: CacheEnv;
  #current: { readonly token: string; readonly expiresAtMs: number } | undefined;

  constructor(http: ObjectHttp, env: CacheEnv) {
    this.#http = http;
    this.#env = env;
  }

  /** @throws BuildError `unauthenticated` when there is no identity. */
  async token(signal: AbortSignal): Promise<string> {
    if (this.#current === undefined || this.#current.expiresAtMs - EXPIRY_MARGIN_MS < Date.now())
      this.#current = await this.#find(signal);
    return this.#current.token;
  }

  async #find(signal: AbortSignal): Promise<{ readonly token: string; readonly expiresAtMs: number }> {
    const env = this.#env;
    const { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: client } = env;
    if (tenant && client && env.AZURE_CLIENT_SECRET)
      return await this.#fromTenant(
        tenant,
        { client_id: client, client_secret: env.AZURE_CLIENT_SECRET },
        signal,
      );
    if (tenant && client && env.AZURE_FEDERATED_TOKEN_FILE) {
      const assertion = (await readFile(env.AZURE_FEDERATED_TOKEN_FILE, "utf8")).trim();
      const form = {
        client_id: client,
        client_assertion: assertion,
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      };
      return await this.#fromTenant(tenant, form, signal);
    }
    return await this.#managed(client, signal);
  }

  async #fromTenant(
    tenant: string,
    who: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<{ readonly token: string; readonly expiresAtMs: number }> {
    const host = this.#env.AZURE_AUTHORITY_HOST || "https://login.microsoftonline.com";
    const form = new URLSearchParams({
      ...who,
      grant_type: "client_credentials",
      scope: `${STORAGE}.default`,
    });
    const bytes = new TextEncoder().encode(form.toString());
    const answer = await this.#http.small(() => ({
      method: "POST",
      url: new URL(`${host.replace(/\/+$/, "")}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`),
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: { sizeBytes: bytes.length, open: () => [bytes] },
      signal,
    }));
    return tokenOf(answer.body);
  }

  async #managed(
    client: string | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly token: string; readonly expiresAtMs: number }> {
    const url = new URL(IMDS);
    url.searchParams.set("api-version", "2018-02-01");
    url.searchParams.set("resource", STORAGE);
    if (client) url.searchParams.set("client_id", client);
    const both = AbortSignal.any([signal, AbortSignal.timeout(IMDS_TIMEOUT_MS)]);
    try {
      const headers = { metadata: "true" };
      return tokenOf((await this.#http.small(() => ({ method: "GET", url, headers, signal: both }))).body);
    } catch (error) {
      signal.throwIfAborted();
      const message = "no credentials for the azblob cache: give secret_access_key, a SAS, or an identity";
      throw new BuildError("unauthenticated", message, { cause: error });
    }
  }
}

function tokenOf(body: Uint8Array): { readonly token: string; readonly expiresAtMs: number } {
  const doc = JSON.parse(new TextDecoder().decode(body)) as Readonly<Record<string, unknown>>;
  const { access_token: token, expires_in: seconds } = doc;
  if (typeof token !== "string")
    throw new BuildError("unauthenticated", "Azure gave no token for the azblob cache");
  return { token, expiresAtMs: Date.now() + Number(seconds ?? 0) * 1000 };
}
