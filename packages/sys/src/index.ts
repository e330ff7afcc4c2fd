export { entryPath } from "./entry.ts";
export type { LocalMount, Mount } from "./mount-type.ts";
