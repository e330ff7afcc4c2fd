import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * The command that starts kilnd: the bundle beside this program's, else the sources' main. `KILN_KILND` names another
 * program. Empty when there is none.
 */
export function kilndCommand(env: Readonly<Record<string, string | undefined>>): string[] {
  if (env.KILN_KILND) return [env.KILN_KILND];
  const here = dirname(fileURLToPath(import.meta.url));
  const candidates = [join(here, "kilnd.cjs"), join(here, "..", "..", "daemon", "src", "kilnd-main.ts")];
  const main = candidates.find((path) => existsSync(path));
  return main === undefined ? [] : [process.execPath, main];
}
