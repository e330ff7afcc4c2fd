export {
  type AddressPolicy,
  forbiddenAddress,
  guardedLookup,
  isAllowedAddress,
  isLocalHost,
} from "./address-guard.ts";
export {
  type Authenticator,
  anonymous,
  type Credentials,
  fixedCredentials,
  type Token,
  type TokenRequest,
} from "./authenticator.ts";
export { type BlobSource, mountCandidates, type PushOptions, type PushOutcome } from "./blob-upload.ts";
export type { RegistryHostConfig, RegistryHostsConfig } from "./hosts.ts";
export { httpStatusOf, isTransient, isTransientStatus, retryAfterMs } from "./http-error.ts";
export {
  type HttpRequest,
  type HttpResponse,
  HttpTransport,
  type HttpTransportOptions,
  printableUrl,
  type RequestBody,
  type TlsOptions,
} from "./http-transport.ts";
export { type Env, proxyForUrl } from "./proxy.ts";
export { readBody } from "./read-body.ts";
export { Registries, type RegistriesOptions, type RegistryLimits } from "./registry.ts";
export { type BlobSink, type CallOptions, type FetchOptions, RegistryClient } from "./registry-client.ts";
