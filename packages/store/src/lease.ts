/** What a lease keeps. */
export type LeaseResource =
  | { readonly kind: "content"; readonly id: string }
  | { readonly kind: "snapshot"; readonly id: string };

/** A named hold on blobs and snapshots. */
export interface Lease {
  readonly id: string;
  readonly createdAt: number;
  /** Milliseconds since the epoch; the lease counts for nothing afterwards. */
  readonly expiresAt: number | undefined;
  readonly labels: ReadonlyMap<string, string>;
}

/** Keeps leases; what no lease names is garbage. */
export interface LeaseStore {
  create(
    id: string,
    opts?: { readonly expiresAt?: number; readonly labels?: Readonly<Record<string, string>> },
  ): Lease;
  get(id: string): Lease | undefined;
  list(): readonly Lease[];
  delete(id: string): void;
  add(id: string, resource: LeaseResource): void;
  remove(id: string, resource: LeaseResource): void;
  resources(id: string): readonly LeaseResource[];
  /** True when a lease that hasn't expired names it. */
  holds(resource: LeaseResource): boolean;
}
