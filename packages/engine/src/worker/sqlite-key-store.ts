import type { CacheBacklink, CacheKeyStore, CacheLinkInfo, CacheResultInfo } from "@kiln/solver";
import type { Database, Row } from "@kiln/store";

// Times are texts: nanoseconds don't fit into the numbers that rows come back as.
const SCHEMA = [
  `CREATE TABLE cache_results (
     key TEXT NOT NULL, result TEXT NOT NULL, created_at_ns TEXT NOT NULL,
     PRIMARY KEY (key, result)) STRICT, WITHOUT ROWID;
   CREATE INDEX cache_results_by_result ON cache_results (result);
   CREATE TABLE cache_link_names (
     id INTEGER PRIMARY KEY, digest TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
     selector TEXT NOT NULL, UNIQUE (digest, input, output, selector)) STRICT;
   CREATE TABLE cache_links (
     key TEXT NOT NULL, name INTEGER NOT NULL REFERENCES cache_link_names (id), target TEXT NOT NULL,
     PRIMARY KEY (key, name, target)) STRICT, WITHOUT ROWID;
   CREATE INDEX cache_links_by_target ON cache_links (target);
   CREATE INDEX cache_links_by_name ON cache_links (name);`,
];

const LINKS = "FROM cache_links l JOIN cache_link_names n ON n.id = l.name";
const NAMED = "n.digest = ? AND n.input = ? AND n.output = ? AND n.selector = ?";

/**
 * The solver's cache keys in SQLite. Losing the last moments of it costs time, never a wrong build, so its
 * database should be one of its own, opened with `synchronous: "normal"`.
 */
export class SqliteKeyStore implements CacheKeyStore {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
    db.migrate("cache keys", SCHEMA);
    db.run("DELETE FROM cache_link_names WHERE id NOT IN (SELECT name FROM cache_links)");
  }

  batch<T>(fn: () => T): T {
    return this.#db.transaction(fn);
  }

  exists(id: string): boolean {
    const sql = `SELECT EXISTS (SELECT 1 FROM cache_results WHERE key = ?)
                     OR EXISTS (SELECT 1 FROM cache_links WHERE key = ?) AS found`;
    return this.#db.get(sql, id, id)?.found === 1;
  }

  ids(): Iterable<string> {
    const sql = "SELECT key FROM cache_results UNION SELECT key FROM cache_links";
    return this.#db.all(sql).map((row) => String(row.key));
  }

  results(id: string): readonly CacheResultInfo[] {
    return this.#db.all("SELECT result, created_at_ns FROM cache_results WHERE key = ?", id).map(infoOf);
  }

  result(id: string, resultId: string): CacheResultInfo | undefined {
    const sql = "SELECT result, created_at_ns FROM cache_results WHERE key = ? AND result = ?";
    const row = this.#db.get(sql, id, resultId);
    return row && infoOf(row);
  }

  addResult(id: string, info: CacheResultInfo): void {
    const sql = `INSERT INTO cache_results VALUES (?, ?, ?)
                 ON CONFLICT (key, result) DO UPDATE SET created_at_ns = excluded.created_at_ns`;
    this.#db.run(sql, id, info.id, String(info.createdAtNs));
  }

  releaseResult(resultId: string): void {
    this.#db.transaction(() => {
      const ids = this.idsByResult(resultId);
      this.#db.run("DELETE FROM cache_results WHERE result = ?", resultId);
      this.#removeEmpty(ids);
    });
  }

  idsByResult(resultId: string): readonly string[] {
    return this.#db
      .all("SELECT key FROM cache_results WHERE result = ?", resultId)
      .map((row) => String(row.key));
  }

  addLink(id: string, link: CacheLinkInfo, target: string): void {
    const name =
      "INSERT OR IGNORE INTO cache_link_names (digest, input, output, selector) VALUES (?, ?, ?, ?)";
    this.#db.run(name, ...partsOf(link)); // a name without links does no harm, so this needs no transaction
    const sql = `INSERT OR IGNORE INTO cache_links SELECT ?, n.id, ? FROM cache_link_names n WHERE ${NAMED}`;
    this.#db.run(sql, id, target, ...partsOf(link));
  }

  removeLink(id: string, link: CacheLinkInfo, target: string): void {
    const sql = `DELETE FROM cache_links WHERE key = ? AND target = ?
                   AND name = (SELECT n.id FROM cache_link_names n WHERE ${NAMED})`;
    this.#db.run(sql, id, target, ...partsOf(link));
  }

  hasLink(id: string, link: CacheLinkInfo, target: string): boolean {
    const sql = `SELECT 1 ${LINKS} WHERE ${NAMED} AND l.key = ? AND l.target = ?`;
    return this.#db.get(sql, ...partsOf(link), id, target) !== undefined;
  }

  links(id: string, link: CacheLinkInfo): readonly string[] {
    const sql = `SELECT l.target ${LINKS} WHERE ${NAMED} AND l.key = ?`;
    return this.#db.all(sql, ...partsOf(link), id).map((row) => String(row.target));
  }

  backlinks(id: string): readonly CacheBacklink[] {
    const sql = `SELECT l.key, n.digest, n.input, n.output, n.selector ${LINKS} WHERE l.target = ?`;
    return this.#db.all(sql, id).map((row) => ({
      id: String(row.key),
      link: {
        digest: String(row.digest),
        input: Number(row.input),
        output: Number(row.output),
        selector: String(row.selector),
      },
    }));
  }

  /** Removes keys that have neither results nor links, and then those that led only to them. */
  #removeEmpty(first: readonly string[]): void {
    const waiting = [...first];
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      if (this.exists(id)) continue;
      for (const row of this.#db.all("SELECT DISTINCT key FROM cache_links WHERE target = ?", id)) {
        waiting.push(String(row.key));
      }
      this.#db.run("DELETE FROM cache_links WHERE target = ?", id);
    }
  }
}

function partsOf(link: CacheLinkInfo): [string, number, number, string] {
  return [link.digest, link.input, link.output, link.selector];
}

function infoOf(row: Row): CacheResultInfo {
  return { id: String(row.result), createdAtNs: BigInt(String(row.created_at_ns)) };
}
