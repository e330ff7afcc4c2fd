/** `buildctl debug dump-metadata`: what a daemon's database says of its records, without the daemon. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { DatabaseSync, SQLOutputValue } from "node:sqlite";
import { BuildError, errorMessage } from "@kiln/base";
import type { CommandBody } from "../command/command.ts";

const DATABASE = "kiln.db";
const DEFAULT_ROOT = "/var/lib/buildkit";

/** The command. */
export const dumpMetadataCommand: CommandBody = {
  usage: "",
  flags: [{ name: "root", kind: "string", defaultValue: DEFAULT_ROOT, usage: "path to state directory" }],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const { DatabaseSync } = await import("node:sqlite");
    for (const file of databasesBelow(ctx.flags.string("root"))) {
      ctx.terminal.stdout.write(`===== ${file} =====\n`);
      const db = new DatabaseSync(file, { readOnly: true });
      try {
        for (const line of tableLines(db)) ctx.terminal.stdout.write(`${line}\n`);
      } finally {
        db.close();
      }
    }
    return 0;
  },
};

function databasesBelow(root: string): string[] {
  try {
    return readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(root, entry.name, DATABASE))
      .filter((file) => existsSync(file));
  } catch (error) {
    throw new BuildError("not_found", errorMessage(error), { cause: error });
  }
}

/** A bucket for each table; a row under its first column. */
function* tableLines(db: DatabaseSync): Generator<string> {
  const tables = db
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
    .all();
  for (const { name } of tables) {
    yield `bucket ${JSON.stringify(name)}:`;
    const quoted = `"${String(name).replaceAll('"', '""')}"`;
    const statement = db.prepare(`SELECT * FROM ${quoted} ORDER BY 1`);
    statement.setReadBigInts(true);
    for (const row of statement.iterate()) {
      const [key, ...rest] = Object.entries(row);
      const values = rest.map(([column, value]) => `${column}=${valueText(value)}`);
      yield `  ${valueText(key?.[1] ?? null)}: ${values.join(" ")}`;
    }
  }
}

/** Bytes are only counted: what they are is the business of other commands. */
function valueText(value: SQLOutputValue): string {
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  return typeof value === "bigint" ? String(value) : JSON.stringify(value);
}
