const ENTROPY_BYTES = 17;
const LENGTH = 25;

let randomBytes = (count: number): Uint8Array => globalThis.crypto.getRandomValues(new Uint8Array(count));

/**
 * Replaces where identifiers get their randomness from. Node's own `crypto` takes longer to load than a short-lived
 * program may run.
 */
export function useRandomBytes(source: (count: number) => Uint8Array): void {
  randomBytes = source;
}

/** A random identifier of 25 base-36 characters, about 129 bits (BuildKit's `identity.NewID`). */
export function newId(): string {
  const bytes = Uint8Array.from(randomBytes(ENTROPY_BYTES));
  bytes[0]! |= 0x80;
  return BigInt(`0x${hex(bytes)}`)
    .toString(36)
    .slice(1, LENGTH + 1);
}

/** `bytes` random bytes in lower-case hex. */
export function randomHex(bytes: number): string {
  return hex(randomBytes(bytes));
}

/** A random (version 4) UUID. */
export function newUuid(): string {
  const h = hex(randomBytes(16));
  const variant = ((Number.parseInt(h[16]!, 16) & 3) | 8).toString(16);
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-4${h.slice(13, 16)}-${variant}${h.slice(17, 20)}-${h.slice(20)}`;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
