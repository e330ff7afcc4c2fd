const ENTROPY_BYTES = 17;
const LENGTH = 25;

/** A random identifier of 25 base-36 characters, about 129 bits (BuildKit's `identity.NewID`). */
export function newId(): string {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(ENTROPY_BYTES));
  bytes[0]! |= 0x80;
  return BigInt(`0x${hex(bytes)}`)
    .toString(36)
    .slice(1, LENGTH + 1);
}

/** `bytes` random bytes in lower-case hex. */
export function randomHex(bytes: number): string {
  return hex(globalThis.crypto.getRandomValues(new Uint8Array(bytes)));
}

/** A random (version 4) UUID. */
export function newUuid(): string {
  const h = hex(globalThis.crypto.getRandomValues(new Uint8Array(16)));
  const variant = ((Number.parseInt(h[16]!, 16) & 3) | 8).toString(16);
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-4${h.slice(13, 16)}-${variant}${h.slice(17, 20)}-${h.slice(20)}`;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
