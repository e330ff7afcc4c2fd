import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";

/**
 * Random bytes per registry host, kept in the docker config folder (`.token_seed`): with them the keys that
 * stand for credentials don't tell anything about the password.
 */
export class TokenSeeds {
  readonly #dir: string;
  #seeds: Map<string, Uint8Array> | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** The seed of a host, made on first use. A folder that can't be written keeps it in memory only. */
  get(host: string): Promise<Uint8Array> {
    const answer = this.#queue.then(() => this.#get(host));
    this.#queue = answer.catch(() => undefined);
    return answer;
  }

  async #get(host: string): Promise<Uint8Array> {
    this.#seeds ??= await this.#read();
    const known = this.#seeds.get(host);
    if (known) return known;
    const seed = randomBytes(16);
    this.#seeds.set(host, seed);
    await this.#write(this.#seeds);
    return seed;
  }

  async #read(): Promise<Map<string, Uint8Array>> {
    const out = new Map<string, Uint8Array>();
    let text: string;
    try {
      text = await readFile(join(this.#dir, ".token_seed"), "utf8");
    } catch (error) {
      if (hasCode(error, ["ENOENT", "ENOTDIR", "EACCES", "EPERM"])) return out;
      throw new BuildError("unknown", `failed to read token seeds: ${errorMessage(error)}`, { cause: error });
    }
    for (const [host, value] of Object.entries(parse(text))) {
      const seed = typeof value === "object" && value !== null && "Seed" in value ? value.Seed : undefined;
      if (typeof seed === "string") out.set(host, Buffer.from(seed, "base64"));
    }
    return out;
  }

  async #write(seeds: ReadonlyMap<string, Uint8Array>): Promise<void> {
    const entries = [...seeds].sort(([a], [b]) => (a < b ? -1 : 1));
    const json = Object.fromEntries(
      entries.map(([host, s]) => [host, { Seed: Buffer.from(s).toString("base64") }]),
    );
    const file = join(this.#dir, ".token_seed");
    try {
      await mkdir(this.#dir, { recursive: true });
      await writeFile(`${file}.${process.pid}`, JSON.stringify(json, undefined, 2), { mode: 0o600 });
      await rename(`${file}.${process.pid}`, file);
    } catch (error) {
      if (!hasCode(error, ["EROFS", "EACCES", "EPERM"])) throw error;
    }
  }
}

/** A crash may have left half a file; then all seeds are made anew. */
function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function hasCode(error: unknown, codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
