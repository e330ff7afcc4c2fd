import { callRaw } from "./libc.ts";

/** `M_ARENA_MAX` of glibc's mallopt. */
const M_ARENA_MAX = -8;

/**
 * Lets the threads of this process share a few arenas of the allocator. Each would keep what was freed in an
 * arena of its own otherwise, up to 8 for every processor. Does nothing where the C library isn't glibc.
 */
export function shareAllocatorArenas(most: number): void {
  ifGlibc(() => callRaw("mallopt", M_ARENA_MAX, most));
}

/** Gives freed memory back to the system. Does nothing where the C library isn't glibc. */
export function trimMemory(): void {
  ifGlibc(() => callRaw("malloc_trim", 0));
}

function ifGlibc(call: () => unknown): void {
  try {
    call();
  } catch {
    // another C library doesn't have it, and needs it less
  }
}
