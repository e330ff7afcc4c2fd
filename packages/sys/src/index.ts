export { entryPath } from "./entry.ts";
