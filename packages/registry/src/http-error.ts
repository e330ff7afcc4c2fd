import { STATUS_CODES } from "node:http";
import { BuildError, type ErrorCode, isBuildError } from "@kiln/base";

const MAX_PRINTED_BODY_CHARS = 256;

/** What an unexpected answer looked like. */
export interface UnexpectedStatus {
  readonly status: number;
  readonly method: string;
  readonly url: string;
  readonly body: string;
}

/** Kept beside the error, so that callers can decide by status. */
const statusOfError = new WeakMap<Error, number>();

/** Failures that the same request would only meet again: no such host, nobody listening, a bad certificate. */
const permanentErrors = new WeakSet<Error>();

/** Marks an error as one that trying again won't cure. */
export function asPermanent<E extends Error>(error: E): E {
  permanentErrors.add(error);
  return error;
}

/** HTTP status behind an error of this package; undefined when there was no answer. */
export function httpStatusOf(error: unknown): number | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const status = statusOfError.get(at);
    if (status !== undefined) return status;
  }
  return undefined;
}

/**
 * `unexpected status from GET request to <url>: 500 Internal Server Error` and, on a second line, what the
 * registry's error document says (containerd's texts). Queries that may hold signatures are cut from the URL
 * of foreign hosts by the caller.
 */
export function unexpectedStatus(answer: UnexpectedStatus): BuildError {
  const { status, method, url } = answer;
  const line = `unexpected status from ${method} request to ${url}: ${statusText(status)}`;
  const details = registryErrors(answer.body);
  const error = new BuildError(codeOfStatus(status), details === undefined ? line : `${line}\n${details}`);
  statusOfError.set(error, status);
  return error;
}

/** The same for token servers, whose bodies are printed even when they aren't in the registry's format. */
export function unexpectedTokenStatus(answer: UnexpectedStatus): BuildError {
  const { status, method, url, body } = answer;
  const known = registryErrors(body);
  const line = `unexpected status from ${method} request to ${url}: ${statusText(status)}`;
  const message = known ?? (body === "" ? line : `${line}: ${shorten(detailsOf(body) ?? body)}`);
  const error = new BuildError(codeOfStatus(status), message);
  statusOfError.set(error, status);
  return error;
}

/** Attaches a status to an error made elsewhere. */
export function withStatus<E extends Error>(error: E, status: number): E {
  statusOfError.set(error, status);
  return error;
}

/** True for failures that may go away: 408, 429, 5xx, broken connections, cut-off bodies. */
export function isTransient(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (permanentErrors.has(at)) return false;
  const status = httpStatusOf(error);
  if (status !== undefined) return isTransientStatus(status);
  return isBuildError(error, "unavailable") || isBuildError(error, "deadline_exceeded");
}

/** What a server's Retry-After says, seconds or a date; undefined when absent or malformed. */
export function retryAfterMs(response: {
  readonly headers: { readonly "retry-after"?: string | undefined };
}): number | undefined {
  const value = response.headers["retry-after"];
  if (value === undefined) return undefined;
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) && ms >= 0 ? ms : undefined;
}

/** Statuses after which the same request may succeed. */
export function isTransientStatus(status: number): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);
}

function statusText(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ""}`.trimEnd();
}

function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case 400:
      return "invalid_argument";
    case 401:
      return "unauthenticated";
    case 403:
      return "permission_denied";
    case 404:
      return "not_found";
    case 429:
      return "resource_exhausted";
    default:
      return status >= 500 ? "unavailable" : "unknown";
  }
}

/** `{"errors":[{"code":"DENIED","message":"…"}]}` as `denied: …`, several below each other. */
function registryErrors(body: string): string | undefined {
  const found = parseObject(body)?.errors;
  if (!Array.isArray(found) || found.length === 0) return undefined;
  const texts = found.slice(0, 10).map((entry: unknown) => {
    const { code, message } =
      typeof entry === "object" && entry !== null ? (entry as Record<string, unknown>) : {};
    const name =
      typeof code === "string" && code !== "" ? code.toLowerCase().replaceAll("_", " ") : "unknown";
    return typeof message === "string" && message !== "" ? `${name}: ${shorten(message)}` : name;
  });
  return texts.length === 1 ? texts[0] : `errors:\n${texts.join("\n")}\n`;
}

function detailsOf(body: string): string | undefined {
  const details = parseObject(body)?.details;
  return typeof details === "string" && details !== "" ? details : undefined;
}

function parseObject(body: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function shorten(text: string): string {
  const printable = text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
  if (printable.length <= MAX_PRINTED_BODY_CHARS) return printable;
  return `${printable.slice(0, MAX_PRINTED_BODY_CHARS)}... (${printable.length - MAX_PRINTED_BODY_CHARS} bytes truncated)`;
}
