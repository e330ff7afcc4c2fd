import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type BuildHistoryRecord, BuildHistoryRecordSchema } from "@kiln/api/control";
import type { Database, Row } from "@kiln/store";

const STEPS = [
  `CREATE TABLE history_records (
     ref TEXT PRIMARY KEY,
     completed_ms INTEGER NOT NULL,
     pinned INTEGER NOT NULL,
     record BLOB NOT NULL
   ) STRICT`,
];

/** Finished builds in SQLite, as the messages that clients get. */
export class RecordTable {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
    db.migrate("history", STEPS);
  }

  get(ref: string): BuildHistoryRecord | undefined {
    const row = this.#db.get("SELECT record FROM history_records WHERE ref = ?", ref);
    return row === undefined ? undefined : recordOf(row);
  }

  put(record: BuildHistoryRecord): void {
    this.#db.run(
      "INSERT OR REPLACE INTO history_records (ref, completed_ms, pinned, record) VALUES (?, ?, ?, ?)",
      record.Ref,
      record.CompletedAt === undefined ? 0 : timestampMs(record.CompletedAt),
      record.pinned ? 1 : 0,
      toBinary(BuildHistoryRecordSchema, record),
    );
  }

  delete(ref: string): boolean {
    return this.#db.run("DELETE FROM history_records WHERE ref = ?", ref) > 0;
  }

  /** Every record, by ref. */
  all(): BuildHistoryRecord[] {
    return this.#db.all("SELECT record FROM history_records ORDER BY ref").map(recordOf);
  }

  /** Refs that are beyond the newest `maxEntries` and completed before `beforeMs`, without the pinned ones. */
  expired(maxEntries: number, beforeMs: number): string[] {
    return this.#db
      .all(
        `SELECT ref FROM (
           SELECT ref, completed_ms FROM history_records WHERE pinned = 0
           ORDER BY completed_ms DESC LIMIT -1 OFFSET ?
         ) WHERE completed_ms < ?`,
        maxEntries,
        Math.floor(beforeMs),
      )
      .map((row) => String(row["ref"]));
  }
}

function recordOf(row: Row): BuildHistoryRecord {
  return fromBinary(BuildHistoryRecordSchema, row["record"] as Uint8Array);
}
