import { type Clock, systemClock } from "@kiln/base";
import type { Database, Row } from "./database.ts";
import type { Lease, LeaseResource, LeaseStore } from "./lease.ts";

const SCHEMA = [
  `CREATE TABLE leases (id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, expires_at INTEGER, labels TEXT NOT NULL) STRICT;
   CREATE TABLE lease_resources (
     lease TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE, kind TEXT NOT NULL, id TEXT NOT NULL,
     PRIMARY KEY (lease, kind, id)) STRICT, WITHOUT ROWID;
   CREATE INDEX lease_resources_by_id ON lease_resources (kind, id);`,
];

/** Leases in the metadata database. Opening it deletes those that have expired. */
export function createLeaseStore(db: Database, clock: Clock = systemClock): LeaseStore {
  db.migrate("leases", SCHEMA);
  db.run("DELETE FROM leases WHERE expires_at <= ?", clock.now());
  return {
    create(id, opts = {}) {
      const expires = opts.expiresAt ?? null;
      db.run(
        `INSERT INTO leases VALUES (?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, labels = excluded.labels`,
        id,
        clock.now(),
        expires,
        JSON.stringify(opts.labels ?? {}),
      );
      return leaseOf(db.get("SELECT * FROM leases WHERE id = ?", id) as Row);
    },
    get(id) {
      const row = db.get("SELECT * FROM leases WHERE id = ?", id);
      return row && leaseOf(row);
    },
    list: () => db.all("SELECT * FROM leases ORDER BY id").map(leaseOf),
    delete: (id) => void db.run("DELETE FROM leases WHERE id = ?", id),
    add(id, resource) {
      db.run("INSERT OR IGNORE INTO lease_resources VALUES (?, ?, ?)", id, resource.kind, resource.id);
    },
    remove(id, resource) {
      db.run(
        "DELETE FROM lease_resources WHERE lease = ? AND kind = ? AND id = ?",
        id,
        resource.kind,
        resource.id,
      );
    },
    resources: (id) =>
      db
        .all("SELECT kind, id FROM lease_resources WHERE lease = ? ORDER BY kind, id", id)
        .map((row) => ({ kind: row.kind, id: row.id }) as LeaseResource),
    holds: (resource) =>
      db.get(
        `SELECT 1 FROM lease_resources r JOIN leases l ON l.id = r.lease
         WHERE r.kind = ? AND r.id = ? AND (l.expires_at IS NULL OR l.expires_at > ?) LIMIT 1`,
        resource.kind,
        resource.id,
        clock.now(),
      ) !== undefined,
  };
}

function leaseOf(row: Row): Lease {
  const labels = JSON.parse(String(row.labels)) as Record<string, string>;
  return {
    id: String(row.id),
    createdAt: Number(row.created_at),
    expiresAt: row.expires_at === null ? undefined : Number(row.expires_at),
    labels: new Map(Object.entries(labels)),
  };
}
