import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { type Status, StatusSchema } from "@kiln/api/rpcstatus";
import {
  BuildError,
  codeOfNodeError,
  type ErrorCode,
  errorMessage,
  isBuildError,
  isCanceled,
} from "@kiln/base";
import type { HeaderBag } from "./metadata.ts";

const codes: readonly ErrorCode[] = [
  "canceled",
  "unknown",
  "invalid_argument",
  "deadline_exceeded",
  "not_found",
  "already_exists",
  "permission_denied",
  "resource_exhausted",
  "failed_precondition",
  "aborted",
  "out_of_range",
  "unimplemented",
  "internal",
  "unavailable",
  "data_loss",
  "unauthenticated",
];

const names = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
];

/** gRPC's number of an error code (1 to 16). */
export function numberOfCode(code: ErrorCode): number {
  return codes.indexOf(code) + 1;
}

/** The code of gRPC's number; `unknown` for numbers that gRPC does not have. 0 (OK) is no error. */
export function codeOfNumber(number: number): ErrorCode {
  return codes[number - 1] ?? "unknown";
}

/** Go's name of a status code, such as `NotFound`, as BuildKit's clients print it. */
export function goCodeName(code: ErrorCode): string {
  return names[numberOfCode(code)] as string;
}

/** The google.rpc.Status of anything thrown; typed details go along byte for byte. */
export function statusFromError(error: unknown): Status {
  const canceled = isCanceled(error) && !isBuildError(error);
  return create(StatusSchema, {
    code: numberOfCode(canceled ? "canceled" : codeOfNodeError(error)),
    message: canceled ? "context canceled" : errorMessage(error),
    details: isBuildError(error)
      ? error.wire.map((d) => create(AnySchema, { typeUrl: d.typeUrl, value: d.value }))
      : [],
  });
}

/** The error that a google.rpc.Status means. Call it only for a code other than 0. */
export function errorFromStatus(status: Status): BuildError {
  return new BuildError(codeOfNumber(status.code), status.message, {
    wire: status.details.map((d) => ({ typeUrl: d.typeUrl, value: d.value })),
  });
}

/** Largest percent-encoded message in trailers. */
const maxMessageBytes = 64 << 10;
/** Largest status with details in trailers, before base64. Peers refuse header blocks of some 147 KiB. */
const maxDetailsBytes = 90 << 10;

/** The trailer lines for a status. */
export function trailersOfStatus(status: Status): Record<string, string> {
  const out: Record<string, string> = { "grpc-status": String(status.code) };
  if (status.message !== "") out["grpc-message"] = percentEncode(status.message).slice(0, maxMessageBytes);
  if (status.details.length === 0) return out;
  const bytes = toBinary(StatusSchema, shrink(status));
  out["grpc-status-details-bin"] = Buffer.from(bytes).toString("base64").replace(/=+$/, "");
  return out;
}

/** Drops the largest details until the rest fits in a header block. */
function shrink(status: Status): Status {
  const details = [...status.details];
  let total = details.reduce((sum, d) => sum + d.value.length + d.typeUrl.length + 8, status.message.length);
  while (total > maxDetailsBytes && details.length > 0) {
    const largest = details.reduce((a, b) => (b.value.length > a.value.length ? b : a));
    details.splice(details.indexOf(largest), 1);
    total -= largest.value.length + largest.typeUrl.length + 8;
  }
  return create(StatusSchema, {
    code: status.code,
    message: status.message.slice(0, maxDetailsBytes),
    details,
  });
}

/** The status in trailers (or in the headers of an answer without messages); undefined without `grpc-status`. */
export function statusOfTrailers(headers: HeaderBag): Status | undefined {
  const text = headers["grpc-status"];
  if (text === undefined) return undefined;
  const code = /^\d{1,9}$/.test(text) ? Number(text) : 2;
  const status = create(StatusSchema, { code, message: percentDecode(headers["grpc-message"] ?? "") });
  const details = headers["grpc-status-details-bin"] ?? "";
  if (details === "") return status;
  try {
    const full = fromBinary(StatusSchema, Buffer.from(details, "base64"));
    if (full.code === code) return full;
  } catch {
    // A peer that sends broken details still has sent a code and a message.
  }
  return status;
}

/** gRPC's encoding of messages: printable ASCII but `%` stays. */
export function percentEncode(text: string): string {
  if (/^[\x20-\x24\x26-\x7e]*$/.test(text)) return text;
  let out = "";
  for (const byte of Buffer.from(text, "utf8")) {
    if (byte >= 0x20 && byte <= 0x7e && byte !== 0x25) out += String.fromCharCode(byte);
    else out += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** Reverse of {@link percentEncode}; broken escapes stay as they are. */
export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  const bytes: number[] = [];
  const input = Buffer.from(text, "latin1");
  for (let i = 0; i < input.length; i++) {
    const hex = input[i] === 0x25 ? text.slice(i + 1, i + 3) : "";
    if (/^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      i += 2;
    } else bytes.push(input[i] as number);
  }
  return Buffer.from(bytes).toString("utf8");
}

/** The code for an HTTP status of something that is no gRPC server. Source: gRPC's http-grpc-status-mapping. */
export function codeOfHttpStatus(status: number): ErrorCode {
  switch (status) {
    case 400:
      return "internal";
    case 401:
      return "unauthenticated";
    case 403:
      return "permission_denied";
    case 404:
      return "unimplemented";
    case 429:
    case 502:
    case 503:
    case 504:
      return "unavailable";
    default:
      return "unknown";
  }
}

/** The code for an HTTP/2 stream reset. Source: gRPC over HTTP/2, errors. */
export function codeOfReset(rstCode: number): ErrorCode {
  switch (rstCode) {
    case 7: // REFUSED_STREAM
      return "unavailable";
    case 8: // CANCEL
      return "canceled";
    case 11: // ENHANCE_YOUR_CALM
      return "resource_exhausted";
    case 12: // INADEQUATE_SECURITY
      return "permission_denied";
    default:
      return "internal";
  }
}
