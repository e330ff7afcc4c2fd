export type * from "./content.ts";
export type * from "./lease.ts";
export type * from "./ref.ts";
export type * from "./ref-manager.ts";
export type * from "./snapshotter.ts";
export type * from "./usage.ts";
