import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { BuildError } from "@kiln/base";

/** What SQLite takes and gives. */
export type SqlValue = string | number | bigint | Uint8Array | null;

/** A row by its column names. */
export type Row = Readonly<Record<string, SqlValue>>;

const SQLITE_FULL = 13;
const SQLITE_IOERR = 10;

/** How durable a commit is. */
export interface DatabaseOptions {
  /**
   * `normal` (default): a transaction survives the end of the process at any time, `kill -9` included; a
   * power failure may undo the last ones, in order. `full`: it is on disk when it returns.
   */
  readonly synchronous?: "full" | "normal";
  /** Called before rows are removed: a note of that needs room, too, when the disk is full. */
  readonly beforeRemoval?: () => void;
}

/**
 * The one SQLite file in which everything that must survive is remembered. Calls are synchronous. Each
 * subsystem owns its tables and their versions through {@link Database.migrate}.
 */
export class Database implements Disposable {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #full: boolean;
  readonly #path: string;
  readonly #beforeRemoval: (() => void) | undefined;
  #depth = 0;
  #closed = false;

  /** @param path file, or `:memory:` */
  constructor(path: string, opts: DatabaseOptions = {}) {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.#db = new DatabaseSync(path);
    this.#full = opts.synchronous === "full";
    this.#path = path;
    this.#beforeRemoval = opts.beforeRemoval;
    try {
      this.#setUp();
    } catch (error) {
      this.#db.close();
      throw error;
    }
  }

  #setUp(): void {
    this.#db.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = ${this.#full ? "FULL" : "NORMAL"};
      PRAGMA busy_timeout = 5000;
      PRAGMA foreign_keys = ON;
      PRAGMA auto_vacuum = INCREMENTAL;
      CREATE TABLE IF NOT EXISTS schema_version (subsystem TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
    `);
  }

  /**
   * Brings the tables of a subsystem to the newest version: `steps[n]` leads from version n to n+1; a step
   * never changes once released.
   *
   * @throws `failed_precondition` when the file was written by a newer program
   */
  migrate(subsystem: string, steps: readonly string[]): void {
    this.transaction(() => {
      const row = this.get("SELECT version FROM schema_version WHERE subsystem = ?", subsystem);
      const version = Number(row?.version ?? 0);
      if (version > steps.length) {
        throw new BuildError(
          "failed_precondition",
          `state of ${subsystem} has version ${version}, this program knows ${steps.length}`,
          { hint: "use the newer program, or another root directory" },
        );
      }
      for (const step of steps.slice(version)) this.#db.exec(step);
      this.run(
        "INSERT INTO schema_version VALUES (?, ?) ON CONFLICT (subsystem) DO UPDATE SET version = excluded.version",
        subsystem,
        steps.length,
      );
    });
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** Runs a statement; the number of changed rows. Texts of statements are kept prepared: don't build them. */
  run(sql: string, ...params: readonly SqlValue[]): number {
    // SQLite takes a whole transaction back when the disk is full: what is left of it must not go on alone.
    if (this.#depth > 0 && !this.#db.isTransaction) throw this.#lost();
    if (sql.startsWith("DELETE")) this.#beforeRemoval?.();
    try {
      return Number(this.#prepare(sql).run(...params).changes);
    } catch (error) {
      throw this.#told(error);
    }
  }

  /** First row of a query. */
  get(sql: string, ...params: readonly SqlValue[]): Row | undefined {
    return this.#prepare(sql).get(...params) as Row | undefined;
  }

  /** All rows of a query. */
  all(sql: string, ...params: readonly SqlValue[]): readonly Row[] {
    return this.#prepare(sql).all(...params) as unknown as readonly Row[];
  }

  /**
   * A transaction that is on disk when it returns, for what must not be undone by a power failure. Not inside
   * another one.
   */
  durably<T>(fn: () => T): T {
    if (this.#full) return this.transaction(fn);
    this.#db.exec("PRAGMA synchronous = FULL");
    try {
      return this.transaction(fn);
    } finally {
      this.#db.exec("PRAGMA synchronous = NORMAL");
    }
  }

  /** Everything that `fn` (synchronous) does happens, or nothing. Transactions nest. */
  transaction<T>(fn: () => T): T {
    const level = this.#depth;
    if (level > 0 && !this.#db.isTransaction) throw this.#lost();
    this.#exec(level === 0 ? "BEGIN IMMEDIATE" : `SAVEPOINT s${level}`);
    this.#depth = level + 1;
    try {
      const result = fn();
      if (!this.#db.isTransaction) throw this.#lost();
      this.#exec(level === 0 ? "COMMIT" : `RELEASE s${level}`);
      return result;
    } catch (error) {
      // A full disk ends it by itself.
      if (this.#db.isTransaction) {
        this.#db.exec(level === 0 ? "ROLLBACK" : `ROLLBACK TO s${level}; RELEASE s${level}`);
      }
      throw error;
    } finally {
      this.#depth = level;
    }
  }

  #exec(sql: string): void {
    try {
      this.#db.exec(sql);
    } catch (error) {
      throw this.#told(error);
    }
  }

  #lost(): BuildError {
    return new BuildError("aborted", `transaction on ${this.#path} was taken back`);
  }

  /** Names the file when the disk is full or fails; SQLite's own words for that are "database or disk is full". */
  #told(error: unknown): unknown {
    const code = error instanceof Error && "errcode" in error ? Number(error.errcode) & 0xff : 0;
    if (code === SQLITE_FULL) {
      return new BuildError("resource_exhausted", `write ${this.#path}: no space left on device`, {
        cause: error,
      });
    }
    if (code === SQLITE_IOERR) {
      return new BuildError("unknown", `write ${this.#path}: input/output error`, { cause: error });
    }
    return error;
  }

  /** Gives pages that were freed back to the file system; a few at a time. */
  compact(pages = 1000): void {
    this.#db.exec(`PRAGMA incremental_vacuum(${Math.trunc(pages)})`);
  }

  /** Bytes of the file, and how many of them are free. */
  size(): { readonly totalBytes: number; readonly freeBytes: number } {
    const pageBytes = Number(this.get("PRAGMA page_size")?.page_size ?? 0);
    const pages = Number(this.get("PRAGMA page_count")?.page_count ?? 0);
    const free = Number(this.get("PRAGMA freelist_count")?.freelist_count ?? 0);
    return { totalBytes: pages * pageBytes, freeBytes: free * pageBytes };
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#statements.clear();
    this.#db.close();
  }
}
